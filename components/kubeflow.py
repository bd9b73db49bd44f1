"""Context managers for a stage that runs as a task of a Kubeflow pipeline."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.stage import TERMINATION_LOG, explain, leave_message


@contextmanager
def running_stage(kfp_run: str = "", termination_log: Path = TERMINATION_LOG) -> Iterator[None]:
    """Run a stage's code in the block, and end the task with a single message if the user made a mistake.

    Args:
        kfp_run: Tags the MLflow run that the stage creates. Without it, the stage logs to the run that trained its
            model: Kubeflow's MLflow plugin sets MLFLOW_RUN_ID to a separate run for every task, and only stages with
            `kfp_run` use it.
        termination_log: Gets that message too, if it exists.
    """
    if kfp_run:
        os.environ["KFP_RUN_ID"] = kfp_run
    else:
        os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        yield
    except BaseException as error:
        leave_message(error, termination_log)
        raise SystemExit(explain(error)) from None


@contextmanager
def reporting_folder() -> Iterator[Path]:
    """Yield a temporary folder for files that are only needed to write the task's report."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
