"""irra export: write both encoders as ONNX files, for search without PyTorch."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.console import MODEL_HELP, Document, check_output_folder
from irra.layout import EXPORT_FACTS, IMAGE_ENCODER, TEXT_ENCODER
from irra.utils.files import hash_file

FILES = (EXPORT_FACTS, IMAGE_ENCODER, TEXT_ENCODER)


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder.")],
) -> Document:
    """Write both encoders of a model as ONNX files, checked against PyTorch.

    The image encoder takes RGB bytes and normalises them itself; both encoders return vectors of length 1.

    Example: irra export model --out onnx
    """
    check_output_folder("--out", out, FILES)
    from components.tracking.models import resolve_model
    from irra.checkpoint import load_model, model_fingerprint
    from irra.search.onnx import export_onnx

    path = resolve_model(model)
    metadata = export_onnx(load_model(path), out, model_fingerprint(path))
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for file in sorted(out.glob("*.onnx"))
    }
    return {"path": str(out), **metadata, "files": files}
