"""irra info: what a model folder or an index folder is."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.console import Document
from irra.layout import CONFIG, INDEX_INFO, WEIGHTS
from irra.utils.errors import UserError
from irra.utils.files import hash_file

SIZES = ("image_size", "stride_size", "text_length", "num_classes", "cmt_depth", "temperature")
TRAINING = ("backbone", "pretrained", "loss_names", "num_epoch")
ORIGIN = ("imported", "dataset", "data_fingerprint", "selected")


def info(
    folder: Annotated[str, typer.Argument(metavar="MODEL_OR_INDEX", help="Model or index folder, or MLflow address.")],
) -> Document:
    """Say what a model or an index is.

    Shows sizes, parameters, data, fingerprint and metrics.

    Example: irra info model
    """
    path = Path(folder)
    if (path / INDEX_INFO).is_file():
        return describe_index(path)
    if not path.is_dir():
        from components.tracking.models import resolve_model

        path = resolve_model(folder)
    return describe_model(path)


def describe_model(folder: Path) -> Document:
    """A model's sizes and origin, read without torch, which takes longer to load than all the rest."""
    facts, weights = read_facts(folder / CONFIG), folder / WEIGHTS
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
    }


def describe_index(folder: Path) -> Document:
    """What an index holds, and the model that it belongs to."""
    from irra.search.format import read_info

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
    }


def read_facts(path: Path) -> dict[str, Any]:
    """The config.json of a model folder; UserError when it is missing, damaged or another program's."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: neither a model folder (no {CONFIG}) nor an index (no {INDEX_INFO})") from None
    except ValueError:
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


def _taken(keys: tuple[str, ...], facts: dict[str, Any]) -> Document:
    return {key: facts[key] for key in keys if key in facts}
