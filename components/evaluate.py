"""Evaluate the best model on val and test, in both directions.

python -m components.evaluate           # what `dvc repro evaluate` runs
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.layout import EVALUATION, MODEL, MODEL_RUN, PREPARED, RANKINGS, TOKENS
from components.results import CMC, METRICS, RESULTS
from components.results import RANKINGS as RANKINGS_KEY
from components.stage import main
from components.tracking.notes import noted_run
from components.tracking.run import open_run
from irra.checkpoint import model_fingerprint, read_model_metadata
from irra.config import EvaluateConfig
from irra.data.store import PreparedStore
from irra.distributed import joined
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
    """Metrics and curves, and the top of every test query's ranking."""

    report: Path = EVALUATION
    rankings: Path = RANKINGS


def run(inputs: Inputs, outputs: Outputs, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model, in all processes that `torchrun` has started.

    Returns:
        The content of results.json: the model, its metrics and their 95% intervals; nothing in processes other than the
        first.
    """
    with joined() as world:
        evaluation = evaluate(inputs.model, inputs.prepared, inputs.tokens, config, world)
        return publish(inputs, outputs, config, evaluation) if world.first else {}


def publish(inputs: Inputs, outputs: Outputs, config: EvaluateConfig, evaluation: Evaluation) -> dict[str, Any]:
    """Write the results, and log them."""
    results = write_results(inputs.model, inputs.prepared, outputs, config, evaluation)
    track(inputs, outputs, config, results)
    return results


def write_results(
    model: Path, prepared: Path, outputs: Outputs, config: EvaluateConfig, evaluation: Evaluation
) -> dict[str, Any]:
    """Write the evaluation of a model on prepared data, and return the content of results.json."""
    results = {
        "model": describe_model(model, PreparedStore.open(prepared)),
        "metrics": evaluation.metrics(),
        "intervals": evaluation.intervals(config.bootstrap_samples, config.seed),
    }
    files = [outputs.report / name for name in (RESULTS, METRICS, CMC)]
    with replace_files(*files, outputs.rankings) as (whole, table, curves, rankings):
        write_table(table, results["metrics"])
        write_curves(curves, evaluation)
        write_rankings(rankings, evaluation)
        results["sha256"] = {METRICS: hash_file(table), CMC: hash_file(curves), RANKINGS_KEY: hash_file(rankings)}
        write_record(whole, results)
    return results


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
    low = {f"interval/{name}_low": low for name, (low, _) in bounds.items()}
    high = {f"interval/{name}_high": high for name, (_, high) in bounds.items()}
    run_id = noted_run(inputs.model_run, model["fingerprint"])
    with open_run("evaluate", run_id=run_id, model_fingerprint=model["fingerprint"]) as tracker:
        tracker.log_params({"evaluate": config.model_dump()})
        now = tracker.log_metrics(final | low | high, epoch)
        tracker.log_folder(outputs.report, "evaluate")
        tracker.log_model(inputs.model, model["fingerprint"], epoch, data, final, now)


if __name__ == "__main__":
    raise SystemExit(main("evaluate", run, Inputs, Outputs, parallel=True))
