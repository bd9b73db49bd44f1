"""The run of an ablation, which is the parent of its trainings, so that MLflow's page shows them below it.

The first training makes it, unless another is faster: `nest` is called after each training has got its own run, and
goes on until it sees one parent that all trainings have. Of several parents the one with the smallest id stays, so that
all processes choose the same, and whoever sees the others deletes them.
"""

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from components.ablation import NAME_PREFIX
from components.tracking.owner import OWNER_TAG, this_process
from components.tracking.store import git

if TYPE_CHECKING:
    from mlflow.entities import Run

NAME = "ablation"
TRAINING_TAG = "irra.ablation"  # of its trainings
ABLATION_TAG = "irra.ablation.parent"  # of its own run
PARENT_TAG = "mlflow.parentRunId"
ROUNDS = 10  # at most; two are enough, unless trainings start at the very same time
ID = "IRRA_ABLATION"  # environment variable: the ablation that a task of a pipeline belongs to


def tags_of_training() -> dict[str, str]:
    """Tags that name the ablation this process trains for, if there is one: DVC's experiments, by their commit."""
    ablation = os.environ.get(ID)
    if os.environ.get("DVC_EXP_NAME", "").startswith(NAME_PREFIX):
        ablation = os.environ.get("DVC_EXP_BASELINE_REV")
    return {TRAINING_TAG: ablation} if ablation else {}


def tags_of_comparison() -> dict[str, str]:
    """Tags that name the ablation whose trainings this process compares."""
    ablation = os.environ.get(ID) or os.environ.get("KFP_RUN_ID") or git("rev-parse", "HEAD")
    return {ABLATION_TAG: ablation} if ablation else {}


def nest(client: Any, experiment: str, ablation: str) -> "Run":
    """Put all trainings of an ablation below its run, which is made if there is none; returns it."""
    from mlflow.exceptions import MlflowException

    for _ in range(ROUNDS):
        parents = _search(client, experiment, ABLATION_TAG, ablation) or [_make_parent(client, experiment, ablation)]
        parent, *others = sorted(parents, key=lambda run: run.info.run_id)
        trainings = _search(client, experiment, TRAINING_TAG, ablation)
        strays = [run for run in trainings if run.data.tags.get(PARENT_TAG) != parent.info.run_id]
        with suppress(MlflowException):  # another process has set a tag, or deleted a run, at the same time
            for run in strays:
                client.set_tag(run.info.run_id, PARENT_TAG, parent.info.run_id)
            for run in others:
                client.delete_run(run.info.run_id)
        if not strays and not others:
            break
    return parent


def _make_parent(client: Any, experiment: str, ablation: str) -> "Run":
    """Make the run, which has ended until the comparison goes on with it, if it ever comes."""
    tags = {ABLATION_TAG: ablation, OWNER_TAG: this_process()}
    run = client.create_run(experiment, tags=tags, run_name=NAME)
    client.set_terminated(run.info.run_id)
    return run


def _search(client: Any, experiment: str, tag: str, ablation: str) -> list["Run"]:
    return list(client.search_runs([experiment], f"tags.`{tag}` = '{ablation}'"))
