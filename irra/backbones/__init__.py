"""Backbone configurations by name: open_clip's ViT CLIP models and the small ones of this project.

Only JSON files are read here, so a stage that needs no network does not wait for torch to load.
"""

import difflib
import importlib.util
import json
from pathlib import Path
from typing import Any

VOCABULARY = 49408
OWN_CONFIGS = Path(__file__).parent


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
    paths = {path.stem: path for folder in (_open_clip_configs(), OWN_CONFIGS) for path in folder.glob("*.json")}
    if name not in paths:
        close = difflib.get_close_matches(name, paths, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; any ViT CLIP name of open_clip works"
        raise ValueError(f"unknown backbone {name!r}{hint}")
    config: dict[str, Any] = json.loads(paths[name].read_text(encoding="utf-8"))
    if not _is_plain_vit_clip(config):
        raise ValueError(f"backbone {name!r} is not a ViT CLIP with CLIP's own text encoder")
    return config


def _is_plain_vit_clip(config: dict[str, Any]) -> bool:
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    return (
        vision.get("patch_size") is not None
        and text.get("vocab_size") == VOCABULARY
        and not {"custom_text", "multimodal_cfg"} & config.keys()
        and not {"attentional_pool", "pool_type", "no_ln_pre", "timm_model_name"} & vision.keys()
        and not {"hf_model_name", "hf_tokenizer_name", "pool_type", "no_causal_mask"} & text.keys()
    )


def _open_clip_configs() -> Path:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None, "open_clip_torch is a dependency of irra"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model_configs"
