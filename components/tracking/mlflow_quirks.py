"""Guards against what MLflow does unasked or leaves undone, seen with 3.17.

Each says what would happen without it, and where it is reported, if a report was found. The waiting that MLflow does
not bound is bounded in waiting.py.
"""

import json
import logging
import os
from typing import Any

# What MLflow reads from the environment, unless the user has set it.
DEFAULTS = {
    # A server that is away would be asked seven more times, which takes four minutes (mlflow/environment_variables.py).
    # The timeout leaves one that is there time to pass a large file on; waiting for anything smaller is bounded by us.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # A run's address would stand on standard output, among a stage's answers: https://github.com/mlflow/mlflow/pull/15734
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # beside the bar of a stage
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # or the making of a database's tables is told line by line
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no request to anyone that the user has not named
}
# These say again, several times, what our single warning says when a server fails.
REPETITIVE_LOGGERS = ("urllib3.connectionpool", "mlflow.system_metrics.system_metrics_monitor", "mlflow.store.db.utils")


def prepare_mlflow() -> None:
    """Set MLflow's defaults, import it (seconds), and silence what only repeats our warning."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    for name in REPETITIVE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def link_to_version(client: Any, model_id: str, name: str, version: str) -> None:
    """Let MLflow's page show at a logged model which version it became, as `mlflow.register_model` does.

    The client's own `create_model_version` does not: https://github.com/mlflow/mlflow/pull/13701
    """
    versions = json.dumps([{"name": name, "version": version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": versions})
