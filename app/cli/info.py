"""irra info: what a model folder or an index folder is."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.console import Document
from irra.layout import CONFIG, INDEX_INFO, WEIGHTS
from irra.utils.errors import UserError
from irra.utils.files import hash_file

STATS, TOKENS = "stats.json", "tokens.json"
SIZES = ("image_size", "stride_size", "text_length", "num_classes", "cmt_depth", "temperature")
TRAINING = ("backbone", "pretrained", "loss_names", "num_epoch")
ORIGIN = ("imported", "dataset", "data_fingerprint", "selected")


def info(
    folder: Annotated[str, typer.Argument(metavar="MODEL_OR_INDEX", help="Model or index folder, or MLflow address.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare its SHA-256; also of prepared data or tokens.")
    ] = False,
) -> Document:
    """Say what a model or an index is.

    Shows sizes, parameters, data, fingerprint and metrics.

    Example: irra info model
    """
    path = Path(folder)
    if (path / STATS).is_file():
        return describe_prepared(path, verify)
    if (path / TOKENS).is_file():
        return describe_tokens(path, verify)
    if (path / INDEX_INFO).is_file():
        return describe_index(path, verify)
    if not path.is_dir():
        from components.tracking.models import resolve_model

        path = resolve_model(folder)
    return describe_model(path, verify)


def describe_prepared(folder: Path, verify: bool) -> Document:
    """What a prepared dataset holds."""
    from irra.data.store import PreparedStore

    store = PreparedStore.open(folder)
    return {
        "kind": "prepared dataset",
        "path": str(folder),
        "dataset": store.dataset_name,
        "pictures": len(store.image_paths),
        "captions": len(store.captions),
        "image_size": list(store.image_size),
        "fingerprint": store.fingerprint,
        **_verified(verify, store.verify),
    }


def describe_tokens(folder: Path, verify: bool) -> Document:
    """What a folder of tokens holds."""
    from irra.data.tokens import TokenStore

    tokens = TokenStore.open(folder)
    return {
        "kind": "tokens",
        "path": str(folder),
        "captions": len(tokens.caption_ids),
        "text_length": tokens.text_length,
        "mask_draws": tokens.mask_draws,
        "fingerprint": tokens.fingerprint,
        "data_fingerprint": tokens.data_fingerprint,
        **_verified(verify, tokens.verify),
    }


def describe_model(folder: Path, verify: bool = False) -> Document:
    """A model's sizes and origin, read without torch, which takes longer to load than all the rest."""
    facts, weights = read_facts(folder / CONFIG), folder / WEIGHTS

    def verify_weights() -> int:
        from irra.utils.records import check_files

        hashes = {WEIGHTS: facts["weights_sha256"]} if facts.get("weights_sha256") else {}
        check_files(folder, hashes, "train the model again, or restore its folder")
        return len(hashes)

    return {
        "kind": "model",
        "path": str(folder),
        "parameters": count_values(weights),
        "bytes": weights.stat().st_size,
        "fingerprint": hash_file(weights),
        "embed_dim": facts["model"]["architecture"]["embed_dim"],
        **_taken(SIZES, facts["model"]),
        **_taken(TRAINING, facts.get("train", {})),
        **_taken(ORIGIN, facts),
        **_verified(verify, verify_weights),
    }


def describe_index(folder: Path, verify: bool = False) -> Document:
    """What an index holds, and the model that it belongs to."""
    from irra.search.format import read_info, verify_index

    facts = read_info(folder)
    return {
        "kind": "index",
        "path": str(folder),
        "pictures": facts.size,
        "captions": facts.captions,
        "skipped": len(facts.skipped),
        "bytes": sum(facts.file_bytes.values()),
        "search": facts.kind,
        "dimension": facts.dimension,
        "dtype": facts.dtype,
        "image_size": facts.image_size,
        "source": facts.source,
        "model_fingerprint": facts.model_fingerprint,
        **_verified(verify, lambda: verify_index(folder)),
    }


def read_facts(path: Path) -> dict[str, Any]:
    """The config.json of a model folder; UserError when it is missing, damaged or another program's."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: neither a model folder (no {CONFIG}) nor an index (no {INDEX_INFO})") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not valid JSON") from None
    match facts:
        case {"model": {"architecture": {"embed_dim": int()}}}:
            return dict(facts)
    raise UserError(f"{path}: not the configuration of a model of this project")


def count_values(weights: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{weights}: missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights}: damaged weights ({error})") from None


def _verified(wanted: bool, verify: Callable[[], int]) -> Document:
    """How many files have been verified, where that is wanted; those of an earlier version have no hashes."""
    return {"verified_files": verify() or "none; an earlier version wrote this without hashes"} if wanted else {}


def _taken(keys: tuple[str, ...], facts: dict[str, Any]) -> Document:
    return {key: facts[key] for key in keys if key in facts}
