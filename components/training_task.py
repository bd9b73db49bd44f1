"""The task `train` of a Kubeflow pipeline, around a training in its own pod or on several nodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import report
from components.kubeflow import MODEL_FINGERPRINT, RUN_ID, rounded, section
from components.train import Inputs, Outputs
from irra.checkpoint import read_model_metadata
from irra.config import TrainConfig
from irra.data.store import PreparedStore


def training_section(config: Mapping[str, Any], loss_names: str, seed: str) -> TrainConfig:
    """Read the section `train`, in which an ablation's loop replaces losses and seed; elsewhere, these are empty.

    Raises:
        UserError: A value is invalid.
    """
    changed = {"loss_names": loss_names, "seed": int(seed)} if loss_names else {}
    return section(TrainConfig, {**config, **changed})


def publish(inputs: Inputs, outputs: Outputs, result: Mapping[str, Any], page: Path) -> dict[str, Any]:
    """Draw the training's report into the file `page`, log it, and return what Kubeflow shows of the model.

    `result` is what the training returned; the curves are in the folder `outputs.report`, which gets the pictures.
    """
    trained = read_model_metadata(outputs.model)
    chapters = [report.draw_dataset(inputs.prepared, outputs.report)]
    chapters.append(report.draw_training(outputs.report, inputs.prepared, trained, outputs.report))
    report.write_chapter(page, chapters[-1], result["run_id"])
    report.log(chapters, result["model_fingerprint"], result["run_id"])
    facts = {
        MODEL_FINGERPRINT: result["model_fingerprint"],
        RUN_ID: result["run_id"],
        "dataset": PreparedStore.open(inputs.prepared).dataset_name,
        **{name: trained["train"][name] for name in ("loss_names", "seed", "backbone")},
        "best_epoch": trained["selected"]["best_epoch"],
        **{name: value for name, value in rounded(result["selected"]).items() if name.endswith("/R1")},
    }
    return {name: fact for name, fact in facts.items() if fact is not None}  # KFP fails on null
