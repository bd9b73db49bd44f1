"""The adapter to MLflow: runs, the registry, the model that is served."""
