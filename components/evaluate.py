"""Evaluate the best model on val and test, in both directions.

python -m components.evaluate           # what `dvc repro evaluate` runs
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.layout import EVALUATION, MODEL, MODEL_RUN, PREPARED, RANKINGS, TOKENS, outside, project
from components.results import CMC, METRICS, RESULTS, as_text, further_tables
from components.results import RANKINGS as RANKINGS_KEY
from components.s3.client import is_remote
from components.s3.transfer import download
from components.stage import main
from components.tracking.notes import noted_run
from components.tracking.run import open_run
from irra.checkpoint import model_fingerprint, read_model_metadata
from irra.config import EvaluateConfig, located
from irra.config.evaluate import name_of
from irra.data.others import Folders, folders_of, prepare_other
from irra.data.store import PreparedStore
from irra.distributed import World, joined
from irra.evaluation import SPLITS, Evaluation, evaluate
from irra.utils.files import hash_file, replace_files, write_json
from irra.utils.nested import flatten
from irra.utils.records import write_record

CMC_RANKS = 20


@dataclass(frozen=True)
class Inputs:
    """The prepared store, its tokens, the best model, and a note of the MLflow run that made it."""

    prepared: Path = PREPARED
    tokens: Path = TOKENS
    model: Path = MODEL
    model_run: Path = MODEL_RUN


@dataclass(frozen=True)
class Outputs:
    """Metrics and curves, the top of every test query's ranking, and other datasets, kept for the next run."""

    report: Path = EVALUATION
    rankings: Path = RANKINGS
    others: Path = Path("data/also")


@dataclass(frozen=True)
class Other:
    """A dataset on which the model is measured as well, and how it did."""

    name: str
    prepared: Path
    evaluation: Evaluation


def run(inputs: Inputs, outputs: Outputs, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model, in all processes that `torchrun` has started.

    Returns:
        The content of results.json: the model, its metrics and their 95% intervals; nothing in processes other than the
        first.
    """
    with joined() as world:
        found = prepare_others(inputs.model, outputs.others, config.also, world)  # a mistake there costs no evaluation
        evaluation = evaluate(inputs.model, inputs.prepared, inputs.tokens, config, world)
        others = []
        for name, at in found.items():
            measured = evaluate(inputs.model, at.prepared, at.tokens, config, world, last_split_only=True)
            others.append(Other(name, at.prepared, measured))
        return publish(inputs, outputs, config, evaluation, others) if world.first else {}


def prepare_others(model: Path, kept: Path, addresses: Sequence[str], world: World) -> dict[str, Folders]:
    """Prepare and tokenize the datasets at these addresses with the sizes of the model, by name.

    Raises:
        UserError: One of them cannot be used, or S3 failed.
    """
    if not addresses:
        return {}
    kept, found = project() / kept, {}  # DVC deletes the temporary workspace of an experiment
    sizes = read_model_metadata(model)["model"]
    image_size, text_length = (sizes["image_size"][0], sizes["image_size"][1]), sizes["text_length"]
    with world.first_before_others():
        for address in addresses:
            folder = kept / address.removeprefix("s3://") if is_remote(address) else Path(outside(address))
            if world.first:
                if is_remote(address):
                    download(address, folder, mirror=True)
                prepare_other(folder, image_size, text_length, kept)
            found[name_of(address)] = folders_of(folder, image_size, text_length, kept)
    return found


def publish(
    inputs: Inputs, outputs: Outputs, config: EvaluateConfig, evaluation: Evaluation, others: Sequence[Other]
) -> dict[str, Any]:
    """Write the results, log them, and print what was measured beside the splits of the dataset."""
    results = write_results(inputs.model, inputs.prepared, outputs, config, evaluation, others)
    track(inputs, outputs, config, results)
    for table in further_tables(results):
        print(as_text(table), flush=True)
    return results


def write_results(
    model: Path,
    prepared: Path,
    outputs: Outputs,
    config: EvaluateConfig,
    evaluation: Evaluation,
    others: Sequence[Other] = (),
) -> dict[str, Any]:
    """Write the evaluation of a model on prepared data, and perhaps others, and return the content of results.json."""
    results = {
        "model": describe_model(model, PreparedStore.open(prepared)),
        **measures(evaluation, config),
        **({"also": [describe_other(model, other, config) for other in others]} if others else {}),
    }
    files = [outputs.report / name for name in (RESULTS, METRICS, CMC)]
    with replace_files(*files, outputs.rankings) as (whole, table, curves, rankings):
        write_table(table, results["metrics"])
        write_curves(curves, evaluation)
        write_rankings(rankings, evaluation)
        results["sha256"] = {METRICS: hash_file(table), CMC: hash_file(curves), RANKINGS_KEY: hash_file(rankings)}
        write_record(whole, results)
    return results


def measures(evaluation: Evaluation, config: EvaluateConfig) -> dict[str, Any]:
    """Metrics and their 95% intervals, and those with captions at test time, if these were asked for."""
    measured: dict[str, Any] = {
        "metrics": evaluation.metrics(),
        "intervals": evaluation.intervals(config.bootstrap_samples, config.seed),
    }
    if evaluation.with_captions:
        settings = {"sentences": config.sentences, "gallery_captions": config.gallery_captions}
        aided = measures(evaluation.with_captions, config)
        measured["with_captions"] = {"says": config.with_captions, **settings, **aided}
    return measured


def describe_other(model: Path, other: Other, config: EvaluateConfig) -> dict[str, Any]:
    """Describe what was measured on another dataset: which split of which data, by a model trained on which."""
    store = PreparedStore.open(other.prepared)
    ((split, _),) = other.evaluation.directions.items()
    metadata = read_model_metadata(model)
    return {
        "name": other.name,
        "dataset": store.dataset_name,
        "data_fingerprint": store.fingerprint,
        "split": split,
        "trained_on": metadata.get("dataset", "unknown"),
        **_of_split(measures(other.evaluation, config), split),
    }


def _of_split(measured: dict[str, Any], split: str) -> dict[str, Any]:
    """The measures of one split, without its name."""
    taken = measured | {name: measured[name][split] for name in ("metrics", "intervals")}
    if "with_captions" in measured:
        taken["with_captions"] = _of_split(measured["with_captions"], split)
    return taken


def describe_model(folder: Path, store: PreparedStore) -> dict[str, Any]:
    """Describe the model and the data it was evaluated on: fingerprints, and how the model was trained."""
    left_out = ("model", "weights_sha256")
    training = {name: value for name, value in read_model_metadata(folder).items() if name not in left_out}
    data = {"dataset": store.dataset_name, "data_fingerprint": store.fingerprint}
    return {"fingerprint": model_fingerprint(folder), **training, **data}


def write_table(path: Path, metrics: dict[str, Any]) -> None:
    """Write the metrics that `dvc metrics diff` shows: text to image only, test first, so that a row stays readable."""
    write_json(path, {split: metrics[split]["t2i"] for split in reversed(SPLITS) if split in metrics})


def write_curves(path: Path, evaluation: Evaluation) -> None:
    """Write recall by rank, one column for each split and direction."""
    curves = flatten(evaluation.cmc(CMC_RANKS), "_")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", *curves])
        writer.writerows([rank + 1, *(curve[rank] for curve in curves.values())] for rank in range(CMC_RANKS))


def write_rankings(path: Path, evaluation: Evaluation) -> None:
    """Write one row per query of the last split: caption id, rank of its first match, best images and similarities."""
    features, ranking = evaluation.features, list(evaluation.directions.values())[-1]["t2i"].ranking
    table = pa.table(
        {
            "caption_id": features.caption_ids,
            "first_rank": ranking.scores.first_rank.astype(np.int64),
            "average_precision": ranking.scores.average_precision,
            "image_ids": list(features.image_ids[ranking.top]),
            "similarities": list(ranking.top_similarity),
        }
    )
    pq.write_table(table, path)


def track(inputs: Inputs, outputs: Outputs, config: EvaluateConfig, results: dict[str, Any]) -> None:
    """Log metrics, intervals and curves to the MLflow run that trained the model, and metrics to its logged model."""
    model, bounds = results["model"], flatten(results["intervals"], "/")
    epoch, data = model["selected"]["best_epoch"], (model["dataset"], model["data_fingerprint"])
    final = {f"final/{name}": value for name, value in flatten(results["metrics"], "/").items()}
    further = {f"final/{name}": value for name, value in flatten(further_metrics(results), "/").items()}
    low = {f"interval/{name}_low": low for name, (low, _) in bounds.items()}
    high = {f"interval/{name}_high": high for name, (_, high) in bounds.items()}
    run_id = noted_run(inputs.model_run, model["fingerprint"])
    with open_run("evaluate", run_id=run_id, model_fingerprint=model["fingerprint"]) as tracker:
        tracker.log_params({"evaluate": config.model_dump()})
        now = tracker.log_metrics(final | further | low | high, epoch)
        tracker.log_folder(outputs.report, "evaluate")
        tracker.log_model(inputs.model, model["fingerprint"], epoch, data, final, now)


def further_metrics(results: dict[str, Any]) -> dict[str, Any]:
    """What was measured with captions at test time and on other datasets, as nested names of metrics in MLflow."""
    aided = {"with_captions": results["with_captions"]["metrics"]} if "with_captions" in results else {}
    also = {
        other["name"]: other["metrics"] if other["split"] == "test" else {other["split"]: other["metrics"]}
        for other in results.get("also", ())
    }
    return aided | ({"also": also} if also else {})


if __name__ == "__main__":
    raise SystemExit(main("evaluate", run, Inputs, Outputs, located, parallel=True))
