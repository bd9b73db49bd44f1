"""Measure the best model on val and test, both ways.

python -m components.evaluate           # as `dvc repro evaluate` does
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.layout import EVALUATION, MODEL, PREPARED, RANKINGS, TOKENS
from components.results import RESULTS
from components.stage import main
from components.tracking.run import open_run
from irra.checkpoint import load_model, model_fingerprint, read_model_metadata
from irra.config import EvaluateConfig
from irra.data.loader import check_same_data
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import SplitFeatures, encode_split, image_to_text, text_to_image
from irra.metrics import bootstrap_intervals
from irra.ranking import Ranking
from irra.utils.device import choose_device
from irra.utils.errors import UserError
from irra.utils.files import replace_file, write_json
from irra.utils.nested import flatten

SPLITS = ("val", "test")
CMC_RANKS = 20


@dataclass(frozen=True)
class Inputs:
    """The prepared store, its tokens and the best model."""

    prepared: Path = PREPARED
    tokens: Path = TOKENS
    model: Path = MODEL


@dataclass(frozen=True)
class Outputs:
    """Metrics and curves; and the top of every test query's ranking."""

    report: Path = EVALUATION
    rankings: Path = RANKINGS


@dataclass(frozen=True)
class Direction:
    """One way of retrieval on one split: its ranking and the identities of its queries."""

    ranking: Ranking
    query_pids: NDArray[np.int64]


def run(inputs: Inputs, outputs: Outputs, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model; returns what results.json holds: the model, its metrics and their 95% intervals."""
    store, tokens = PreparedStore.open(inputs.prepared), TokenStore.open(inputs.tokens)
    check_same_data(store, tokens)
    model = load_model(inputs.model)
    check_same_sizes(inputs.model, model.spec.image_size, model.spec.text_length, store, tokens)
    model = model.to(choose_device(config.device)).eval()
    directions: dict[str, dict[str, Direction]] = {}
    for split in [name for name in SPLITS if name in store.splits]:
        features = encode_split(model, store, tokens, split, config.test_batch_size, config.precision)
        directions[split] = rank_both_ways(features, config.top_k)
    results = {"model": describe_model(inputs.model, store), **measure(directions, config)}
    write_json(outputs.report / RESULTS, results)
    write_table(outputs.report / "metrics.json", results["metrics"])
    write_curves(outputs.report / "cmc.csv", directions)
    write_rankings(outputs.rankings, features, directions[split]["t2i"].ranking)
    track(outputs, config, results)
    return results


def describe_model(folder: Path, store: PreparedStore) -> dict[str, Any]:
    """Which model was measured on which data: its weights, and how it was trained."""
    facts = {name: value for name, value in read_model_metadata(folder).items() if name != "model"}
    measured = {"dataset": store.dataset_name, "data_fingerprint": store.fingerprint}
    return {"fingerprint": model_fingerprint(folder), **facts, **measured}


def check_same_sizes(
    folder: Path, image_size: tuple[int, int], text_length: int, store: PreparedStore, tokens: TokenStore
) -> None:
    """UserError when the data does not have the sizes that the model was made for."""
    if image_size != store.image_size or text_length != tokens.text_length:
        raise UserError(
            f"{folder} takes images of {image_size} and texts of {text_length} tokens, the data has {store.image_size} "
            f"and {tokens.text_length}; train again, or prepare and tokenize with the model's sizes"
        )


def rank_both_ways(features: SplitFeatures, top_k: int) -> dict[str, Direction]:
    """Text-to-image and image-to-text retrieval of a split."""
    return {
        "t2i": Direction(text_to_image(features, top_k), features.caption_pids),
        "i2t": Direction(image_to_text(features, top_k), features.image_pids),
    }


def measure(directions: dict[str, dict[str, Direction]], config: EvaluateConfig) -> dict[str, Any]:
    """`metrics` and their 95% `intervals`, both by split, direction and name."""

    def each(value: Callable[[Direction], Any]) -> dict[str, dict[str, Any]]:
        return {split: {way: value(one) for way, one in ways.items()} for split, ways in directions.items()}

    return {
        "metrics": each(lambda one: one.ranking.scores.metrics()),
        "intervals": each(
            lambda one: bootstrap_intervals(one.ranking.scores, one.query_pids, config.bootstrap_samples, config.seed)
        ),
    }


def write_table(path: Path, metrics: dict[str, Any]) -> None:
    """What DVC compares: a row that can be read, text to image alone, with test in front."""
    write_json(path, {split: metrics[split]["t2i"] for split in reversed(SPLITS) if split in metrics})


def write_curves(path: Path, directions: dict[str, dict[str, Direction]]) -> None:
    """Recall by rank, a column for each split and direction."""
    curves = {
        f"{split}_{way}": one.ranking.scores.cmc(CMC_RANKS)
        for split, ways in directions.items()
        for way, one in ways.items()
    }
    with replace_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", *curves])
        writer.writerows([rank + 1, *(curve[rank] for curve in curves.values())] for rank in range(CMC_RANKS))


def write_rankings(path: Path, features: SplitFeatures, ranking: Ranking) -> None:
    """One row per test query: caption id, rank of its first match, and the best images with their similarity."""
    table = pa.table(
        {
            "caption_id": features.caption_ids,
            "first_rank": ranking.scores.first_rank.astype(np.int64),
            "average_precision": ranking.scores.average_precision,
            "image_ids": list(features.image_ids[ranking.top]),
            "similarities": list(ranking.top_similarity),
        }
    )
    with replace_file(path) as temporary:
        pq.write_table(table, temporary)


def track(outputs: Outputs, config: EvaluateConfig, results: dict[str, Any]) -> None:
    """Log metrics, intervals and curves to the MLflow run that trained the model."""
    model, bounds = results["model"], flatten(results["intervals"], "/")
    final = {f"final/{name}": value for name, value in flatten(results["metrics"], "/").items()}
    final |= {f"interval/{name}_low": low for name, (low, _) in bounds.items()}
    final |= {f"interval/{name}_high": high for name, (_, high) in bounds.items()}
    with open_run("evaluate", model_fingerprint=model["fingerprint"]) as tracker:
        tracker.log_params({"evaluate": config.model_dump()})
        tracker.log_metrics(final, model["selected"]["best_epoch"])
        tracker.log_folder(outputs.report, "evaluate")


if __name__ == "__main__":
    raise SystemExit(main("evaluate", run, Inputs, Outputs))
