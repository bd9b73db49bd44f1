"""Finding people in pictures with torchvision's detectors."""

import hashlib
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irra.footage.frames import Box
from irra.model.weights import check_fit, read_foreign
from irra.utils.device import choose_device
from irra.utils.errors import UserError
from irra.utils.files import hash_file, replace_file
from irra.utils.progress import progress

DETECTORS = (  # of torchvision, from fast to accurate; their weights are of COCO, among whose classes is a person
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "ssd300_vgg16",
    "retinanet_resnet50_fpn",
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn_v2",
)
DEFAULT_DETECTOR = "fasterrcnn_mobilenet_v3_large_fpn"
WITHOUT_EPSILON = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn")  # normalised so when they were trained
COUNTER = "num_batches_tracked"  # of batch normalisation in training; the files of some networks have none
PERSON = "person"
TIMEOUT_SECONDS = 20.0  # to connect, and for every piece of a download
PIECE = 1 << 20  # bytes

Pixels = NDArray[np.uint8]


class Detector:
    """Finds people in pictures.

    Args:
        name: One of DETECTORS.
        weights: A file with its weights; None for torchvision's, which are downloaded if need be.
        min_score: The least confidence, 0..1. What a network itself leaves out (most: below 0.05) is never found.
        device: As for `choose_device`.

    Attributes:
        description: What the boxes depend on: name, SHA-256 of the weights, least score.

    Raises:
        UserError: There is no such detector or file, the weights are not those of this detector or cannot be had, or
            the score is not in 0..1.
    """

    def __init__(self, name: str, weights: Path | None = None, min_score: float = 0.5, device: str = "auto") -> None:
        from torchvision.models import get_model, get_model_weights

        check_detector(name, min_score)
        file = find_weights(name) if weights is None else weights
        tensors, _ = read_foreign(file)
        model: nn.Module = get_model(name, weights=None, weights_backbone=None)
        _load(model, tensors, name, file)
        self._device, self._min_score = choose_device(device), min_score
        self._model = model.to(self._device).eval()
        self._person = get_model_weights(name).DEFAULT.meta["categories"].index(PERSON)
        self.description = f"{name} {hash_file(file)} score {min_score}"

    def detect(self, pictures: Sequence[Pixels]) -> list[list[Box]]:
        """The people in each picture (H, W, 3), of any sizes: best first, in its pixels."""
        return [self._people(picture) for picture in pictures]

    @torch.inference_mode()
    def _people(self, picture: Pixels) -> list[Box]:
        # One at a time: in a batch, smaller pictures are padded, and what is found would depend on their neighbours.
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self._device)
        found: dict[str, Tensor] = self._model([pixels.permute(2, 0, 1).float() / 255])[0]
        is_person = (found["labels"] == self._person) & (found["scores"] >= self._min_score)
        corners, scores = found["boxes"][is_person].tolist(), found["scores"][is_person].tolist()
        boxes = [
            Box(left, top, right - left, bottom - top, score)
            for (left, top, right, bottom), score in zip(corners, scores, strict=True)
        ]
        return sorted(boxes, key=lambda box: (-(box.score or 0.0), box.x, box.y, box.width, box.height))


def check_detector(name: str, min_score: float) -> None:
    """Check the settings of a detector, before its weights are read.

    Raises:
        UserError: There is no such detector, or the score is not in 0..1.
    """
    if name not in DETECTORS:
        raise UserError(f"--detector: {name!r} is none of {', '.join(DETECTORS)}")
    if not 0.0 <= min_score <= 1.0:
        raise UserError(f"--min-score: {min_score} is not in 0..1")


def find_weights(name: str) -> Path:
    """The file of torchvision's weights of a detector in torch's cache, downloaded if need be.

    Raises:
        UserError: They are not there and cannot be downloaded; the message says where to put which file.
    """
    from torchvision.models import get_model_weights

    url: str = get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.exists():
        try:
            _download(url, file)
        except (OSError, HTTPException, ValueError) as error:
            reason = " ".join((str(error) or type(error).__name__).split())
            raise UserError(
                f"the weights of {name} are not here and could not be downloaded ({reason}); put {file.name} into "
                f"{file.parent}, or name the file with --detector-weights; it is {url}"
            ) from None
    return file


def _download(url: str, file: Path) -> None:
    """Download weights, whose name ends with the beginning of their SHA-256."""
    file.parent.mkdir(parents=True, exist_ok=True)
    expected, found = file.stem.rpartition("-")[2], hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_SECONDS) as answer, replace_file(file) as temporary:
        total = -(-int(answer.headers.get("Content-Length") or 0) // PIECE)
        with temporary.open("wb") as output:
            for piece in progress(_pieces(answer), f"download {file.name}", total, "MiB"):
                found.update(piece)
                output.write(piece)
        if not found.hexdigest().startswith(expected):
            raise OSError("what came is not this file")


def _pieces(answer: BinaryIO) -> Iterator[bytes]:
    while piece := answer.read(PIECE):
        yield piece


def _load(model: nn.Module, tensors: dict[str, Tensor], name: str, file: Path) -> None:
    own, given = (
        {key: value for key, value in state.items() if not key.endswith(COUNTER)}
        for state in (model.state_dict(), tensors)
    )
    try:
        check_fit(own, given, file)
    except UserError as error:
        raise UserError(f"--detector {name}: {error}") from None
    model.load_state_dict(given, strict=False)
    if name in WITHOUT_EPSILON:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
