"""Backbone configurations by name: open_clip's ViT CLIP models and the small ones of this project.

Only JSON files are read here, so a stage that needs no network does not wait for torch to load.
"""

import difflib
import json
from pathlib import Path
from typing import Any

from irra.utils.packages import folder_of

VOCABULARY = 49408
OWN_CONFIGS = Path(__file__).parent
VISION_SIZES = {"image_size", "layers", "width", "patch_size"}
VISION_OPTIONS = {"head_width", "mlp_ratio", "ls_init_value"}
TEXT_SIZES = {"context_length", "vocab_size", "width", "heads", "layers"}


def read_patch_size(name: str) -> int:
    """The side, in pixels, of the patches of the backbone called `name`.

    Raises:
        ValueError: As in `read_config`.
    """
    return int(read_config(name)["vision_cfg"]["patch_size"])


def read_config(name: str) -> dict[str, Any]:
    """The model configuration called `name`, in open_clip's format.

    Raises:
        ValueError: The name is unknown, or is not that of a plain ViT CLIP.
    """
    folders = (folder_of("open_clip") / "model_configs", OWN_CONFIGS)
    paths = {path.stem: path for folder in folders for path in folder.glob("*.json")}
    if name not in paths:
        close = difflib.get_close_matches(name, paths, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; any ViT CLIP name of open_clip works"
        raise ValueError(f"unknown backbone {name!r}{hint}")
    config: dict[str, Any] = json.loads(paths[name].read_text(encoding="utf-8"))
    if not _is_plain_vit_clip(config):
        raise ValueError(f"backbone {name!r} is not a ViT CLIP with CLIP's own text encoder, given by its sizes alone")
    return config


def _is_plain_vit_clip(config: dict[str, Any]) -> bool:
    """Whether it has only the sizes that `irra.model.modules` knows."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    return (
        config.keys() <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
        and VISION_SIZES <= vision.keys() <= VISION_SIZES | VISION_OPTIONS
        and vision["patch_size"] is not None  # of a ResNet
        and text.keys() == TEXT_SIZES
        and text["vocab_size"] == VOCABULARY
    )
