"""irra info: describe a model or an index."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import Document
from irra.layout import CONFIG, INDEX_INFO, WEIGHTS, embedding_parts
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file, hash_file

if TYPE_CHECKING:
    from irra.search.format import Info

STATS, TOKENS = "stats.json", "tokens.json"
SIZES = ("image_size", "stride_size", "text_length", "num_classes", "cmt_depth", "temperature")
TRAINING = ("backbone", "pretrained", "init_from", "loss_names", "num_epoch")
ORIGIN = ("imported", "dataset", "data_fingerprint", "selected")


def info(
    folder: Annotated[
        str,
        typer.Argument(metavar="MODEL_OR_INDEX", help="Model or index folder, or address of MLflow or LanceDB."),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare its SHA-256; also of prepared data or tokens.")
    ] = False,
) -> Document:
    """Describe a model or an index.

    Shows sizes, parameters, data, fingerprint and metrics.

    Example: irra info model
    """
    from irra.search.address import is_lance

    if is_lance(folder):
        return describe_lance(folder, verify)
    path = Path(folder)
    for name, describe in {STATS: describe_prepared, TOKENS: describe_tokens, INDEX_INFO: describe_index}.items():
        if os.path.lexists(path / name):
            return describe(path, verify)
    if not path.is_dir():
        from components.tracking.models import resolve_model

        path = resolve_model(folder)
    return describe_model(path, verify)


def describe_prepared(folder: Path, verify: bool) -> Document:
    """Describe the content of a prepared dataset."""
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
    """Describe the content of a tokens folder."""
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
    """Describe a model's sizes and origin, without importing torch, which would take longer than everything else."""
    metadata, weights = read_metadata(folder / CONFIG), folder / WEIGHTS
    width = metadata["model"]["architecture"]["embed_dim"]
    parts = embedding_parts(width, metadata["model"].get("token_selection"))

    def verify_weights() -> int:
        from irra.utils.records import check_files

        hashes = {WEIGHTS: metadata["weights_sha256"]} if metadata.get("weights_sha256") else {}
        check_files(folder, hashes, "train the model again, or restore its folder")
        return len(hashes)

    return {
        "kind": "model",
        "path": str(folder),
        "parameters": count_values(weights),
        "bytes": weights.stat().st_size,
        "fingerprint": hash_file(weights),
        "embed_dim": width,
        **({"embedding": parts} if parts else {}),
        **_pick(SIZES, metadata["model"]),
        **_pick(TRAINING, metadata.get("train", {})),
        **_pick(ORIGIN, metadata),
        **_verified(verify, verify_weights),
    }


def describe_index(folder: Path, verify: bool = False) -> Document:
    """Describe the content of an index folder and the model it was made with."""
    from irra.search.format import read_info, verify_index

    return _index(str(folder), read_info(folder)) | _verified(verify, lambda: verify_index(folder))


def describe_lance(address: str, verify: bool) -> Document:
    """Describe the content of a LanceDB gallery and the model it was made with.

    Raises:
        UserError: There is none; or its files should be verified, which the database does when it reads them.
    """
    from irra.search.address import open_gallery

    if verify:
        raise UserError(f"--verify: {address} is a database, which has no list of files to compare")
    return _index(address, open_gallery(address).info)


def _index(address: str, index: "Info") -> Document:
    return {
        "kind": "index",
        "path": address,
        "pictures": index.size,
        "captions": index.captions,
        **({"described": index.described} if index.described else {}),
        "skipped": len(index.skipped),
        **({"forgotten": len(index.forgotten["keys"])} if index.forgotten else {}),
        **({"bytes": sum(index.file_bytes.values())} if index.file_bytes else {}),
        "search": index.kind,
        "dimension": index.dimension,
        "dtype": index.dtype,
        "image_size": index.image_size,
        "source": index.source,
        "model_fingerprint": index.model_fingerprint,
        **({"columns": index.columns} if index.columns else {}),
        **({"footage": _footage(address, index)} if index.footage else {}),
    }


def _footage(address: str, index: "Info") -> Document:
    """What was read of frames and video, and who of the people in them is in the index."""
    import pyarrow.compute as pc

    from irra.footage.plan import Reading
    from irra.search.address import open_gallery

    read = [Reading.parse(one) for one in index.footage.values()]
    people = open_gallery(address).table(["file", "track"])
    return {
        "files": len(read),
        "frames": sum(one.frames for one in read),
        "people": pc.count(people["file"]).as_py(),
        "tracks": pc.count_distinct(people["track"]).as_py(),
        "damaged": sum(one.damaged for one in read),
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the config.json of a model folder.

    Raises:
        UserError: It is missing or damaged, or belongs to another program.
    """
    from irra.utils.records import read_record

    missing = (
        f"{path.parent}: neither a model folder (no {CONFIG}), an index (no {INDEX_INFO}), "
        f"prepared data (no {STATS}) nor tokens (no {TOKENS})"
    )
    metadata = read_record(path, dict[str, Any], missing, "restore the folder, or make it again")
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

    check_regular_file(weights)
    try:
        with safe_open(weights, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{weights}: missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights}: damaged weights ({error})") from None


def _verified(wanted: bool, verify: Callable[[], int]) -> Document:
    """Say how many files were verified, if that is wanted; files of an earlier version have no hashes."""
    return {"verified_files": verify() or "none; an earlier version wrote this without hashes"} if wanted else {}


def _pick(keys: tuple[str, ...], values: dict[str, Any]) -> Document:
    return {key: values[key] for key in keys if key in values}
