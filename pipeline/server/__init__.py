"""A Kubeflow Pipelines server: submit runs and follow them, keep pipelines as versions."""
