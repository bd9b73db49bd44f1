"""Export of both encoders as ONNX files, for search without PyTorch.

`image_encoder.onnx` takes `pixels`, uint8 (B, H, W, 3) in RGB. It includes CLIP's normalisation, so do not normalise
beforehand. `text_encoder.onnx` takes `caption_ids`, int64 (B, L): rows of start, tokens, end and padding 0, as the
tokenizer produces them, with L up to the model's text length. Both return `embeddings`, float32 (B, D) of unit norm,
whose dot products are cosine similarities. `encoders.json` records these sizes and constants, and the model.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from irra.data.augment import CLIP_MEAN, CLIP_STD, normalise
from irra.data.masking import END_ID, START_ID
from irra.layout import EXPORT_FACTS, IMAGE_ENCODER, TEXT_ENCODER, embedding_parts
from irra.model import IRRA
from irra.utils.files import replace_folder, write_json

OPSET = 17  # the first with layer normalisation
CHECKED_BATCHES = (1, 2, 5)
TOLERANCE = 1e-4


class ImageEncoder(nn.Module):
    """`IRRA.encode_image` from pixels to embeddings of unit norm."""

    def __init__(self, model: IRRA) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, D)."""
        return _unit(self.model.encode_image(normalise(pixels)))


class TextEncoder(nn.Module):
    """`IRRA.encode_text` from token ids to embeddings of unit norm."""

    def __init__(self, model: IRRA) -> None:
        super().__init__()
        self.model = model

    def forward(self, caption_ids: Tensor) -> Tensor:
        """(B, L) int64 to (B, D), read at the end token."""
        return _unit(self.model.encode_text(caption_ids))


def export_onnx(model: IRRA, folder: Path, fingerprint: str | None = None) -> dict[str, Any]:
    """Export both encoders of `model` and their metadata to `folder`, replacing it only after they were checked.

    Args:
        model: The model.
        folder: Folder to write.
        fingerprint: Of the model's weights; it tells which embeddings are comparable.

    Returns:
        The metadata, as in encoders.json.

    Raises:
        RuntimeError: The exported encoders differ from the model.
    """
    pixels, caption_ids = (torch.from_numpy(x).to(_device(model)) for x in random_inputs(model, 2, seed=0))
    with replace_folder(folder) as target:
        _write(ImageEncoder(model), pixels, target / IMAGE_ENCODER, "pixels", {0: "batch"})
        _write(TextEncoder(model), caption_ids, target / TEXT_ENCODER, "caption_ids", {0: "batch", 1: "length"})
        check_export(model, target)
        metadata = describe(model, fingerprint)
        write_json(target / EXPORT_FACTS, metadata)
    return metadata


def check_export(model: IRRA, folder: Path) -> None:
    """Compare the encoders in `folder`, run by ONNX Runtime, with `model`.

    Raises:
        RuntimeError: Their embeddings differ by more than TOLERANCE.
    """
    for index, name in enumerate((IMAGE_ENCODER, TEXT_ENCODER)):
        onnx.checker.check_model(str(folder / name), full_check=True)
        session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        for batch in CHECKED_BATCHES:
            inputs = random_inputs(model, batch, seed=batch)
            (found,) = session.run(None, {session.get_inputs()[0].name: inputs[index]})
            worst = float(np.abs(found - _embeddings(model, *inputs)[index]).max())
            if not worst <= TOLERANCE:  # written so that NaN fails too
                raise RuntimeError(f"{folder / name}: embeddings differ from the model's by {worst:.2g}")


def describe(model: IRRA, fingerprint: str | None) -> dict[str, Any]:
    """What a user of the encoders must know, as JSON data."""
    global_width, ratio = model.clip.text_projection.shape[1], model.spec.token_selection
    parts = embedding_parts(global_width, ratio)
    return {
        "model_fingerprint": fingerprint,
        "embedding_dimension": model.embedding_width,
        **({"embedding": parts} if parts else {}),
        "image_encoder": {
            "file": IMAGE_ENCODER,
            "image_size": list(model.spec.image_size),
            "resize": "to height and width of image_size, bilinear with antialiasing",
            "normalisation_inside": {"scale": 1 / 255, "mean": list(CLIP_MEAN), "std": list(CLIP_STD)},
        },
        "text_encoder": {
            "file": TEXT_ENCODER,
            "text_length": model.spec.text_length,
            "tokenizer": "CLIP's byte pairs without their last merge",
            "start_id": START_ID,
            "end_id": END_ID,
            "padding_id": 0,
        },
    }


def random_inputs(model: IRRA, batch: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Random pixels (B, H, W, 3) and caption ids (B, L) with random ends; larger batches have a smaller L."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (batch, *model.spec.image_size, 3), dtype=np.uint8)
    length = max(3, model.spec.text_length - batch + 1)
    caption_ids = rng.integers(1, START_ID, (batch, length))
    caption_ids[:, 0] = START_ID
    ends = rng.integers(1, length, (batch, 1))
    columns = np.arange(length)
    return pixels, np.where(columns < ends, caption_ids, np.where(columns == ends, END_ID, 0))


def _embeddings(
    model: IRRA, pixels: NDArray[np.uint8], caption_ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    device = _device(model)
    with torch.no_grad():
        images = model.encode_image(normalise(torch.from_numpy(pixels).to(device)))
        captions = model.encode_text(torch.from_numpy(caption_ids).to(device))
    return F.normalize(images, dim=1).cpu().numpy(), F.normalize(captions, dim=1).cpu().numpy()


def _write(encoder: nn.Module, example: Tensor, path: Path, name: str, dynamic: dict[int, str]) -> None:
    """Export by tracing, which needs only torch; its warnings are about values that really are constant."""
    encoder.train(next(encoder.children()).training)  # the exporter restores this mode on the whole model
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder,
            (example,),
            path,
            dynamo=False,
            input_names=[name],
            output_names=["embeddings"],
            dynamic_axes={name: dynamic, "embeddings": {0: "batch"}},
            opset_version=OPSET,
        )


def _unit(features: Tensor) -> Tensor:
    unit: Tensor = features / features.norm(dim=1, keepdim=True)
    return unit


def _device(model: IRRA) -> torch.device:
    return next(model.parameters()).device
