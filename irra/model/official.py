"""Checkpoints released by the authors of IRRA and of RDE: the names of their weights, and importing them."""

from pathlib import Path

import torch
from torch import Tensor

from irra.model.irra import IRRA, ModelSpec, build_model
from irra.model.token_selection import EXPANSION
from irra.model.weights import check_fit, read_foreign
from irra.utils.errors import UserError

OFFICIAL_TEMPERATURE = 0.02
OFFICIAL_SELECTION = 0.3  # RDE's share of selected tokens
BRANCH = ("cross_attn", "cross_modal_transformer", "ln_pre_t", "ln_pre_i", "ln_post", "mlm_head")
# Beginnings of names here and in the released codes. RDE misspells its own.
OFFICIAL = {
    "clip.": "base_model.",
    **{f"interaction.{part}.": f"{part}." for part in BRANCH},
    "token_selection.image.linear.": "visul_emb_layer.fc.",
    "token_selection.image.hidden.": "visul_emb_layer.mlp.layers.0.",
    "token_selection.image.norm.": "visul_emb_layer.mlp.bns.0.",
    "token_selection.image.output.": "visul_emb_layer.mlp.layers.1.",
    "token_selection.text.linear.": "texual_emb_layer.linear.",
    "token_selection.text.hidden.": "texual_emb_layer.mlp.layers.0.",
    "token_selection.text.norm.": "texual_emb_layer.mlp.bns.0.",
    "token_selection.text.output.": "texual_emb_layer.mlp.layers.1.",
}
SELECTION = ("visul_emb_layer.", "texual_emb_layer.")
# of RDE: its code has them and never uses them
UNUSED = ("visul_emb_layer.linear.", "visul_emb_layer.mlp.bns.1.", "texual_emb_layer.mlp.bns.1.")


def import_official(path: Path, image_size: tuple[int, int] = (384, 128)) -> IRRA:
    """Import a checkpoint that IRRA's or RDE's authors released (`best.pth`); sizes are inferred from its weights.

    Attention heads of the encoders are 64 wide, as in every CLIP; the temperature is the constant 0.02, and RDE selects
    0.3 of the tokens. Weights that RDE's code never uses are left out, which one line says.

    Args:
        path: The checkpoint.
        image_size: Height and width in pixels of the images that it was trained on.

    Raises:
        UserError: There is no such checkpoint, or a weight is missing, unexpected or of the wrong shape.
    """
    weights, _ = read_foreign(path)
    unused = [name for name in weights if name.startswith(UNUSED)]
    weights = {name: value for name, value in weights.items() if not name.startswith(UNUSED)}
    try:
        spec = _official_spec(weights, image_size)
        _check_selection(weights, path)
        with torch.device("meta"):  # shapes alone: nothing is allocated for weights that do not fit
            shapes = build_model(spec).state_dict()
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path}: missing {error.args[0]}; is it a checkpoint of IRRA or RDE?") from None
    except Exception as error:  # odd shapes make sizes that torch refuses in all kinds of ways
        raise UserError(f"{path}: its weights have not the shapes of an IRRA checkpoint ({error})") from None
    check_fit({official_name(name): value for name, value in shapes.items()}, weights, path)
    if unused:
        kinds = ", ".join(f"{start}*" for start in UNUSED if any(name.startswith(start) for name in unused))
        print(f"note: {path}: {len(unused)} weights that RDE never uses are left out ({kinds})", flush=True)
    model = build_model(spec)
    model.load_state_dict({own_name(name): value for name, value in weights.items()})
    return model


def own_name(official: str) -> str:
    """The name here of a released weight; an unknown one keeps its name."""
    for own, released in OFFICIAL.items():
        if official.startswith(released):
            return own + official.removeprefix(released)
    return official


def official_name(own: str) -> str:
    """The released name of a weight; one that has the same name here and there, or none there, keeps it."""
    for start, released in OFFICIAL.items():
        if own.startswith(start):
            return released + own.removeprefix(start)
    return own


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
    ratio = OFFICIAL_SELECTION if any(name.startswith(SELECTION) for name in weights) else None
    return ModelSpec(
        architecture, image_size, stride, text_length, OFFICIAL_TEMPERATURE, classes, depth, token_selection=ratio
    )


def _check_selection(weights: dict[str, Tensor], path: Path) -> None:
    """Check that token selection, if there is any, widens the features as it does here.

    Raises:
        UserError: It does not.
    """
    if any(name.startswith(SELECTION) for name in weights):
        outputs, width = len(weights["visul_emb_layer.fc.weight"]), weights["base_model.text_projection"].shape[1]
        if outputs != EXPANSION * width:
            raise UserError(
                f"{path}: its token selection gives {outputs} values for tokens of {width}; "
                f"here it gives {EXPANSION * width}, as in RDE's release"
            )


def _count_blocks(weights: dict[str, Tensor], prefix: str) -> int:
    start = f"{prefix}.resblocks."
    return len({name.removeprefix(start).split(".")[0] for name in weights if name.startswith(start)})


def _infer_stride(patches: int, image_size: tuple[int, int], patch: int) -> int:
    height, width = image_size
    for stride in range(patch, 0, -1):
        if ((height - patch) // stride + 1) * ((width - patch) // stride + 1) == patches:
            return stride
    raise UserError(f"no stride gives {patches} image positions at image size {height}x{width} and patch size {patch}")
