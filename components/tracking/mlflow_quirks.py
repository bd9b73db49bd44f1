"""Workarounds for behaviour of MLflow 3.17.

Each comment says what would happen without the workaround, and links to a report if there is one. waiting.py adds the
time limits that MLflow lacks.
"""

import logging
import os

# Environment variables of MLflow, set unless the user has set them.
DEFAULTS = {
    # By default, an unreachable server is tried seven more times, which takes four minutes
    # (mlflow/environment_variables.py). The timeout leaves a server enough time to forward a large file; for anything
    # smaller, our own limits are shorter.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # Otherwise the address of a run appears on standard output, among a stage's answers:
    # https://github.com/mlflow/mlflow/pull/15734
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # the stages have their own
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # otherwise creating the tables of a database logs many lines
    "MLFLOW_DISABLE_TELEMETRY": "true",  # send nothing to third parties
}
# When a server fails, these repeat several times what our single warning says.
REPETITIVE_LOGGERS = ("urllib3.connectionpool", "mlflow.system_metrics.system_metrics_monitor", "mlflow.store.db.utils")


def prepare_mlflow() -> None:
    """Set MLflow's defaults, import it (which takes seconds), and silence the loggers that repeat our warning."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    for name in REPETITIVE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
