"""Importing the checkpoints released by IRRA's authors."""

from pathlib import Path

import torch
from torch import Tensor

from irra.model.irra import IRRA, ModelSpec, build_model
from irra.model.weights import check_fit, read_foreign
from irra.utils.errors import UserError

OFFICIAL_TEMPERATURE = 0.02


def import_official(path: Path, image_size: tuple[int, int] = (384, 128)) -> IRRA:
    """Import a checkpoint that IRRA's authors released (`best.pth`); sizes are inferred from its weights.

    Attention heads of the encoders are 64 wide, as in every CLIP; the temperature is the constant 0.02.

    Args:
        path: The checkpoint.
        image_size: Height and width in pixels of the images that it was trained on.

    Raises:
        UserError: There is no such checkpoint, or a weight is missing, unexpected or of the wrong shape.
    """
    weights, _ = read_foreign(path)
    try:
        spec = _official_spec(weights, image_size)
        with torch.device("meta"):  # shapes alone: nothing is allocated for weights that do not fit
            shapes = build_model(spec).state_dict()
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path}: missing {error.args[0]}; is it an IRRA checkpoint?") from None
    except Exception as error:  # odd shapes make sizes that torch refuses in all kinds of ways
        raise UserError(f"{path}: its weights have not the shapes of an IRRA checkpoint ({error})") from None
    check_fit({_official_name(name): value for name, value in shapes.items()}, weights, path)
    model = build_model(spec)
    model.load_state_dict({_own_name(name): value for name, value in weights.items()})
    return model


def _own_name(official: str) -> str:
    if official.startswith("base_model."):
        return "clip." + official.removeprefix("base_model.")
    return official if official.startswith("classifier.") else "interaction." + official


def _official_name(own: str) -> str:
    if own.startswith("clip."):
        return "base_model." + own.removeprefix("clip.")
    return own.removeprefix("interaction.")


def _official_spec(weights: dict[str, Tensor], image_size: tuple[int, int]) -> ModelSpec:
    conv = weights["base_model.visual.conv1.weight"]
    tokens = len(weights["base_model.visual.positional_embedding"])
    text_length, text_width = weights["base_model.positional_embedding"].shape
    architecture = {
        "embed_dim": weights["base_model.text_projection"].shape[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": list(image_size),
            "layers": _count_blocks(weights, "base_model.visual.transformer"),
            "width": conv.shape[0],
            "patch_size": conv.shape[2],
        },
        "text_cfg": {
            "context_length": text_length,
            "vocab_size": len(weights["base_model.token_embedding.weight"]),
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": _count_blocks(weights, "base_model.transformer"),
        },
    }
    stride = _infer_stride(tokens - 1, image_size, conv.shape[2])
    classes = len(weights["classifier.weight"]) if "classifier.weight" in weights else None
    depth = _count_blocks(weights, "cross_modal_transformer") if "cross_attn.in_proj_weight" in weights else None
    return ModelSpec(architecture, image_size, stride, text_length, OFFICIAL_TEMPERATURE, classes, depth)


def _count_blocks(weights: dict[str, Tensor], prefix: str) -> int:
    start = f"{prefix}.resblocks."
    return len({name.removeprefix(start).split(".")[0] for name in weights if name.startswith(start)})


def _infer_stride(patches: int, image_size: tuple[int, int], patch: int) -> int:
    height, width = image_size
    for stride in range(patch, 0, -1):
        if ((height - patch) // stride + 1) * ((width - patch) // stride + 1) == patches:
            return stride
    raise UserError(f"no stride gives {patches} image positions at image size {height}x{width} and patch size {patch}")
