"""What a stage needs around it when it runs as a task of a Kubeflow pipeline."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.stage import explain


@contextmanager
def running_stage(kfp_run: str = "") -> Iterator[None]:
    """Run a stage's code: a user's mistake ends the task with one message.

    `kfp_run` tags the MLflow run that the stage makes. A stage without it belongs to the run that trained its model:
    Kubeflow's MLflow plugin gives every task a run of its own in MLFLOW_RUN_ID, which only train attaches to.
    """
    if kfp_run:
        os.environ["KFP_RUN_ID"] = kfp_run
    else:
        os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        yield
    except BaseException as error:
        raise SystemExit(explain(error)) from None


@contextmanager
def reporting_folder() -> Iterator[Path]:
    """Yield a folder for pictures and numbers that only the report shows."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
