"""Small models for tests."""

from typing import Any

import torch

from irra.model import IRRA, ModelSpec, build_model


def architecture(width: int = 16, vocabulary: int = 49408, image_size: tuple[int, int] = (64, 32)) -> dict[str, Any]:
    return {
        "embed_dim": width,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": list(image_size),
            "layers": 2,
            "width": width,
            "head_width": 8,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": vocabulary,
            "width": width,
            "heads": 2,
            "layers": 2,
        },
    }


def small_model(seed: int = 0, **changes: Any) -> IRRA:
    """A model of two layers for 64x32 images and 16 tokens, with both heads."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "architecture": architecture(),
        "image_size": (64, 32),
        "stride_size": 16,
        "text_length": 16,
        "temperature": 0.05,
        "num_classes": 12,
        "cmt_depth": 1,
    }
    return build_model(ModelSpec(**(sizes | changes)))
