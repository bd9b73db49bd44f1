"""irra import-official: convert a checkpoint released by the authors of IRRA or RDE to a model folder."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from app.cli.console import Document, check_output_folder
from app.cli.info import describe_model
from irra.layout import CONFIG, WEIGHTS
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file, hash_file


def import_official(
    checkpoint: Annotated[Path, typer.Argument(metavar="BEST_PTH", help="The released best.pth.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Model folder to write.")],
    image_size: Annotated[
        tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", min=1, help="Size of the training images, in pixels.")
    ] = (384, 128),
) -> Document:
    """Convert a checkpoint of IRRA or RDE, as released, to a model folder.

    The stages and the other commands accept it like a model trained here.

    Example: irra import-official best.pth --out model
    """
    check_regular_file(checkpoint)
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such file")
    check_output_folder("--out", out, (WEIGHTS, CONFIG))
    write_model(checkpoint, out, image_size)
    return describe_model(out)


def write_model(checkpoint: Path, out: Path, image_size: tuple[int, int]) -> None:
    """Write the model folder; its metadata names the checkpoint. Its best epoch is 0, since it was not trained here."""
    from irra import checkpoint as checkpoints

    model = checkpoints.import_official(checkpoint, image_size)
    metadata = {"imported": {"file": checkpoint.name, "sha256": hash_file(checkpoint)}, "selected": {"best_epoch": 0}}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".irra-", dir=out.parent) as folder:  # has room for the weights
        weights = Path(folder, WEIGHTS)
        checkpoints.save_weights(model, weights)
        checkpoints.save_model(out, weights, model.spec, metadata)
