"""The adapter to MLflow: runs, the model registry, the served model."""
