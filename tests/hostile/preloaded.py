"""Imported once by the process that commands are forked from: all that a stage imports, also within functions."""

import importlib
import os

from components.stages import ROWS

os.environ["OMP_NUM_THREADS"] = "1"  # the same number of threads gives the same weights
OTHERS = (
    "boto3.s3.transfer",
    "components.tracking.sync",
    "irra.synthetic",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
    "pandas",
)
for name in (*(stage.module for stage in ROWS), *OTHERS):
    importlib.import_module(name)
