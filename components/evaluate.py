"""Measure the best model on val and test, both ways, and show what it retrieves.

python -m components.evaluate           # as `dvc repro evaluate` does
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.figures import RetrievalRow, cmc_curve, retrieval_sheet
from components.layout import EVALUATION, MODEL, PREPARED, TOKENS
from components.stage import main
from components.tracking.run import open_run
from irra.checkpoint import load_model, model_fingerprint, read_model_metadata
from irra.config import EvaluateConfig, ReportConfig
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
    """Metrics, curves and pictures; and the top of every test query's ranking."""

    report: Path = EVALUATION
    rankings: Path = Path("data/rankings.parquet")


@dataclass(frozen=True)
class Direction:
    """One way of retrieval on one split: its ranking and the identities of its queries."""

    ranking: Ranking
    query_pids: NDArray[np.int64]


def run(inputs: Inputs, outputs: Outputs, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model; returns its metrics by split and direction."""
    store, tokens = PreparedStore.open(inputs.prepared), TokenStore.open(inputs.tokens)
    check_same_data(store, tokens)
    model = load_model(inputs.model)
    check_same_sizes(inputs.model, model.spec.image_size, model.spec.text_length, store, tokens)
    model = model.to(choose_device(config.device)).eval()
    results: dict[str, dict[str, Direction]] = {}
    for split in [name for name in SPLITS if name in store.splits]:
        features = encode_split(model, store, tokens, split, config.test_batch_size, config.precision)
        results[split] = rank_both_ways(features, config.top_k)
    metrics = {
        split: {way: direction.ranking.scores.metrics() for way, direction in ways.items()}
        for split, ways in results.items()
    }
    write_numbers(outputs, config, results, metrics)
    write_json(outputs.report / "model.json", describe_model(inputs.model, store))
    write_rankings(outputs.rankings, features, results[split]["t2i"].ranking)
    draw_sheets(outputs.report, store, features, results[split]["t2i"].ranking, config)
    track(inputs, outputs, config, metrics)
    return metrics


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


def write_numbers(
    outputs: Outputs, config: EvaluateConfig, results: dict[str, dict[str, Direction]], metrics: dict[str, Any]
) -> None:
    """metrics.json, its 95% intervals, and the CMC curves as CSV and picture."""
    intervals = {
        split: {
            way: bootstrap_intervals(d.ranking.scores, d.query_pids, config.bootstrap_samples, config.seed)
            for way, d in ways.items()
        }
        for split, ways in results.items()
    }
    curves = {
        f"{split}/{way}": d.ranking.scores.cmc(CMC_RANKS) for split, ways in results.items() for way, d in ways.items()
    }
    write_json(outputs.report / "metrics.json", metrics)
    write_json(outputs.report / "intervals.json", intervals)
    cmc_curve(outputs.report / "cmc.png", curves)
    with replace_file(outputs.report / "cmc.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", *(name.replace("/", "_") for name in curves)])
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


def draw_sheets(
    folder: Path, store: PreparedStore, features: SplitFeatures, ranking: Ranking, config: EvaluateConfig
) -> None:
    """Best, worst and random queries with what they retrieve."""
    for name, queries in pick_queries(features, ranking, config).items():
        rows = [retrieval_row(store, features, ranking, int(query)) for query in queries]
        retrieval_sheet(folder / f"retrieval_{name}.png", f"{name.capitalize()} queries", rows)


def pick_queries(features: SplitFeatures, ranking: Ranking, config: EvaluateConfig) -> dict[str, NDArray[np.int64]]:
    """Query rows for each sheet, at most one of a person."""
    scores = ranking.scores
    order = np.lexsort((-ranking.top_similarity[:, 0], scores.first_rank, -scores.average_precision))
    shuffled = np.random.default_rng(config.seed).permutation(len(order))
    rows = {"best": order, "worst": order[::-1], "random": shuffled}
    return {name: one_per_person(features.caption_pids, r)[: ReportConfig().sheet_queries] for name, r in rows.items()}


def one_per_person(pids: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each person, in the order of `rows`."""
    _, first = np.unique(pids[rows], return_index=True)
    return rows[np.sort(first)]


def retrieval_row(store: PreparedStore, features: SplitFeatures, ranking: Ranking, query: int) -> RetrievalRow:
    """A query with its own image and its best results."""
    caption_id = features.caption_ids[query]
    image_ids = features.image_ids[ranking.top[query]]
    right = store.image_pids[image_ids] == features.caption_pids[query]
    results = zip(store.pixels(image_ids), ranking.top_similarity[query].tolist(), right.tolist(), strict=True)
    truth = store.pixels(store.caption_image_ids[[caption_id]])[0]
    return RetrievalRow(store.captions[caption_id], truth, list(results), int(ranking.scores.first_rank[query]))


def track(inputs: Inputs, outputs: Outputs, config: EvaluateConfig, metrics: dict[str, Any]) -> None:
    """Log metrics and pictures to the MLflow run that trained the model."""
    facts = read_model_metadata(inputs.model)
    with open_run("evaluate", model_fingerprint=model_fingerprint(inputs.model)) as tracker:
        tracker.log_params({"evaluate": config.model_dump()})
        final = {f"final/{name}": value for name, value in flatten(metrics, "/").items()}
        tracker.log_metrics(final, facts["selected"]["best_epoch"])
        tracker.log_folder(outputs.report, "evaluate")


if __name__ == "__main__":
    raise SystemExit(main("evaluate", run, Inputs, Outputs))
