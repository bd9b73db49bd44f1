"""What a new training starts from instead of CLIP's weights: a model folder, or a checkpoint that others released."""

from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from irra.backbones import read_config
from irra.checkpoint import load_model
from irra.layout import CONFIG, WEIGHTS
from irra.model import IRRA, ModelSpec
from irra.model.clip import extend_positions, find_weights, resize_positions
from irra.model.modules import CLIP, HEAD_WIDTH
from irra.model.official import own_name
from irra.model.weights import check_fit, read_foreign
from irra.utils.errors import UserError

BACKBONE, TEMPERATURE, TRAINED_TEMPERATURE = "clip.", "clip.logit_scale", "log_scale"
IMAGE_POSITIONS, TEXT_POSITIONS = "clip.visual.positional_embedding", "clip.positional_embedding"
# beginnings of the names of CLIP's weights where they have no common prefix
BARE = ("visual.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_proj", "logit_scale")
HEADS = {  # beginnings of names, the first that fits
    "interaction.mlm_head.": "MLM head",
    "interaction.": "cross-modal branch",
    "classifier.": "ID classifier",
    "token_selection.": "token selection",
}
SHOWN = 3  # names of weights in a message


class Start(NamedTuple):
    """Weights by their names here and, of a model folder, the sizes of the model and the grid of its patches."""

    weights: dict[str, Tensor]
    spec: ModelSpec | None = None
    grid: tuple[int, int] | None = None


def find_start(backbone: str, pretrained: str | None, init_from: str | None) -> Path | None:
    """The file of weights from which a training starts: that of `init_from`, or else of `pretrained`.

    Args:
        backbone: Name of the backbone.
        pretrained: As in `find_weights`; not looked at if there is an `init_from`.
        init_from: A model folder, or a checkpoint with the names that IRRA, RDE or CLIP gives its weights.

    Raises:
        UserError: There are no such weights, or they are not those of the backbone.
    """
    if init_from is None:
        return find_weights(backbone, pretrained)
    path = Path(init_from)
    if path.is_dir() and not (path / CONFIG).is_file():
        raise UserError(f"train.init_from: {path} is no model folder, which has a {CONFIG}")
    file = path / WEIGHTS if path.is_dir() else path
    try:
        _check_backbone(_read(file), backbone, path)
    except UserError as error:
        raise UserError(f"train.init_from: {error}") from None
    return file


def load_start(model: IRRA, file: Path) -> str:
    """Load into `model` what fits of the weights that `find_start` has found.

    The backbone is loaded as a whole; position embeddings of another image size are resized, and of longer texts cut. A
    head is loaded if all of its weights are there in the right shapes. The temperature stays that of `model`.

    Returns:
        What was loaded and what was not.

    Raises:
        UserError: The positions cannot be made to fit.
    """
    start, own = _read(file), model.state_dict()
    weights, said = _fit_positions(start, model, file)
    chosen = {name: weights[name] for name in own if name.startswith(BACKBONE)}
    said.insert(0, f"backbone of {len(chosen)} tensors loaded")
    for head, what in HEADS.items():
        theirs, ours = _head(head, weights), _head(head, own)
        if why := _why_not(head, theirs, ours, start, model.spec):
            said.append(f"{what} {why}")
        elif ours:
            chosen |= theirs
            said.append(f"{what} loaded")
    if TRAINED_TEMPERATURE in weights:
        said.append("trained temperature not loaded (train.temperature counts)")
    known = (BACKBONE, TRAINED_TEMPERATURE, *HEADS)
    if others := [name for name in weights if not name.startswith(known)]:
        more = ", ..." if len(others) > SHOWN else ""
        said.append(f"{len(others)} other weights not loaded ({', '.join(others[:SHOWN])}{more})")
    model.load_state_dict(chosen, strict=False)
    return f"init_from {file.parent if start.spec else file}: {'; '.join(said)}"


def _read(file: Path) -> Start:
    """Read a model folder, by its file of weights, or a file of others.

    Raises:
        UserError: It is damaged, or the weights of a model folder are without the rest of it.
    """
    if file.name == WEIGHTS and (file.parent / CONFIG).is_file():
        model = load_model(file.parent)
        return Start(model.state_dict(), model.spec, model.clip.visual.grid_size)
    weights, _ = read_foreign(file)
    if any(name.startswith(BACKBONE) for name in weights):
        raise UserError(f"{file}: the weights of a model folder; name the folder, whose {CONFIG} has the sizes")
    return Start({_own_name(name): value for name, value in weights.items()})


def _own_name(name: str) -> str:
    return f"{BACKBONE}{name}" if name.startswith(BARE) else own_name(name)


def _check_backbone(start: Start, backbone: str, path: Path) -> None:
    """Check that the backbone of `start` is `backbone`, for whatever images and texts.

    Raises:
        UserError: It has other weights, or others of the sizes that do not show in the weights.
    """
    architecture = read_config(backbone)
    with torch.device("meta"):  # shapes alone
        own = {f"{BACKBONE}{name}": value for name, value in CLIP(**architecture).state_dict().items()}
    own.pop(TEMPERATURE)
    theirs = {name: start.weights[name] for name in start.weights if name.startswith(BACKBONE) and name != TEMPERATURE}
    try:
        check_fit(_without_lengths(own), _without_lengths(theirs), path)
    except UserError as error:
        raise UserError(f"train.backbone is {backbone}, but {error}") from None
    _check_what_weights_do_not_show(start, backbone, architecture, path)


def _check_what_weights_do_not_show(start: Start, backbone: str, architecture: dict[str, Any], path: Path) -> None:
    theirs = start.spec.architecture if start.spec else None
    quick = bool(theirs.get("quick_gelu")) if theirs else True  # IRRA and its successors start from OpenAI's CLIP
    if quick != bool(architecture.get("quick_gelu")):
        known = "" if theirs else ", as all checkpoints of IRRA and its successors"
        other = f"{backbone}-quickgelu" if quick else backbone.removesuffix("-quickgelu")
        raise UserError(
            f"{path} was trained with{'' if quick else 'out'} QuickGELU{known}, unlike {backbone}; "
            f"set train.backbone: {other}"
        )
    if _attention_heads(theirs or _usual_heads(architecture)) != _attention_heads(architecture):
        raise UserError(f"train.backbone is {backbone}, but {path} divides attention into other heads")


def _attention_heads(architecture: dict[str, Any]) -> tuple[int, int]:
    """The width of a head of the image encoder, and the number of heads of the text encoder."""
    return architecture["vision_cfg"].get("head_width", HEAD_WIDTH), architecture["text_cfg"]["heads"]


def _usual_heads(architecture: dict[str, Any]) -> dict[str, Any]:
    """Those of a released CLIP of the same widths."""
    return {"vision_cfg": {}, "text_cfg": {"heads": max(1, architecture["text_cfg"]["width"] // HEAD_WIDTH)}}


def _without_lengths(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, of position embeddings the first one alone."""
    lengths = (IMAGE_POSITIONS, TEXT_POSITIONS)
    return {name: value[:1] if name in lengths and value.dim() else value for name, value in weights.items()}


def _fit_positions(start: Start, model: IRRA, file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights with positions for the images and texts of `model`, and what was done.

    Raises:
        UserError: It is unknown how the patches lie, or the weights' positions cannot be extended to so long texts.
    """
    images, texts, grid = start.weights[IMAGE_POSITIONS], start.weights[TEXT_POSITIONS], model.clip.visual.grid_size
    length, said = len(model.clip.positional_embedding), []
    if (old := start.grid or _guess_grid(len(images) - 1, grid)) is None:
        raise UserError(
            f"train.init_from: {file}: of which image size are its {len(images) - 1} patches? Convert it with "
            "`irra import-official --image-size`, and name the model folder"
        )
    if old != grid:
        said.append("image positions resized from {}x{} to {}x{}".format(*old, *grid))
    if len(texts) != length:
        said.append(f"text positions {'cut' if len(texts) > length else 'extended'} from {len(texts)} to {length}")
    fitting = {
        IMAGE_POSITIONS: resize_positions(images, old, grid),
        TEXT_POSITIONS: extend_positions(texts, length),
    }
    return start.weights | fitting, said


def _guess_grid(patches: int, ours: tuple[int, int]) -> tuple[int, int] | None:
    """How that many patches lie: as `ours`, or in images that are square, or two or three times as high as wide."""
    if patches == ours[0] * ours[1]:
        return ours
    sides = {ratio: isqrt(patches // ratio) for ratio in (1, 2, 3)}
    return next(((ratio * side, side) for ratio, side in sides.items() if ratio * side**2 == patches > 0), None)


def _head(head: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one of `HEADS`."""
    return {name: weights[name] for name in weights if next(filter(name.startswith, HEADS), None) == head}


def _why_not(head: str, theirs: dict[str, Tensor], ours: dict[str, Tensor], start: Start, spec: ModelSpec) -> str:
    """Why a head is not loaded; empty if it is, or if there is none."""
    if not theirs or not ours:
        return "not loaded (not used here)" if theirs else "starts anew" if ours else ""
    if head == "interaction.mlm_head." and (start.spec.mlm_ids if start.spec else None) != spec.mlm_ids:
        return "not loaded (it predicts other tokens)"
    if theirs.keys() != ours.keys():
        return f"not loaded (it has other weights, such as {min(theirs.keys() ^ ours.keys())})"
    if other := [name for name in ours if ours[name].shape != theirs[name].shape]:
        if head == "classifier.":
            return f"of {len(theirs[other[0]])} people not loaded (the data have {len(ours[other[0]])})"
        return f"not loaded ({other[0]} is {tuple(theirs[other[0]].shape)} instead of {tuple(ours[other[0]].shape)})"
    return ""
