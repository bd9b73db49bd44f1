"""irra info: describe a model folder or an index folder."""

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
    """Describe a model or an index.

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
    """Describe a model's sizes and origin, without importing torch, which would take longer than everything else."""
    metadata, weights = read_metadata(folder / CONFIG), folder / WEIGHTS
    return {
        "kind": "model",
        "path": str(folder),
        "parameters": count_values(weights),
        "bytes": weights.stat().st_size,
        "fingerprint": hash_file(weights),
        "embed_dim": metadata["model"]["architecture"]["embed_dim"],
        **_pick(SIZES, metadata["model"]),
        **_pick(TRAINING, metadata.get("train", {})),
        **_pick(ORIGIN, metadata),
    }


def describe_index(folder: Path) -> Document:
    """Describe the content of an index and the model it was made with."""
    from irra.search.format import read_info

    index = read_info(folder)
    return {
        "kind": "index",
        "path": str(folder),
        "pictures": index.size,
        "captions": index.captions,
        "skipped": len(index.skipped),
        "bytes": sum(index.file_bytes.values()),
        "search": index.kind,
        "dimension": index.dimension,
        "dtype": index.dtype,
        "image_size": index.image_size,
        "source": index.source,
        "model_fingerprint": index.model_fingerprint,
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the config.json of a model folder.

    Raises:
        UserError: It is missing or damaged, or belongs to another program.
    """
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: neither a model folder (no {CONFIG}) nor an index (no {INDEX_INFO})") from None
    except ValueError:
        raise UserError(f"{path}: not valid JSON") from None
    match metadata:
        case {"model": {"architecture": {"embed_dim": int()}}}:
            return dict(metadata)
    raise UserError(f"{path}: not the configuration of a model of this project")


def count_values(weights: Path) -> int:
    """Count the numbers in a safetensors file by its header.

    Raises:
        UserError: The file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{weights}: missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights}: damaged weights ({error})") from None


def _pick(keys: tuple[str, ...], values: dict[str, Any]) -> Document:
    return {key: values[key] for key in keys if key in values}
