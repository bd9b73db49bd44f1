"""CLIP's modules against open_clip's: names, shapes, and every bit of the initial weights and of what they compute."""

import json
from typing import Any

import open_clip
import pytest
import torch
from open_clip import transformer as theirs
from torch import Tensor, nn

from irra.backbones import OWN_CONFIGS, read_config
from irra.model.attention import run_blocks
from irra.model.modules import CLIP, LayerNorm, QuickGELU, Transformer
from irra.utils.packages import folder_of
from tests.models import architecture


def known_backbones() -> list[str]:
    """All names that `read_config` accepts."""
    names = {
        path.stem for folder in (folder_of("open_clip") / "model_configs", OWN_CONFIGS) for path in folder.glob("*")
    }
    found = []
    for name in sorted(names - {"__init__", "__pycache__"}):
        try:
            read_config(name)
        except ValueError:
            continue
        found.append(name)
    return found


def shapes(model: nn.Module) -> list[tuple[str, torch.Size, bool]]:
    return [(name, parameter.shape, parameter.requires_grad) for name, parameter in model.named_parameters()]


def changed(**vision: Any) -> dict[str, Any]:
    sizes = architecture()
    return sizes | {"vision_cfg": sizes["vision_cfg"] | vision}


def seeded(kind: type[nn.Module], *arguments: Any, **options: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The state of a new module after seeding, and the next random numbers."""
    torch.manual_seed(0)
    return kind(*arguments, **options).state_dict(), torch.rand(4)


def assert_equal_bits(ours: tuple[dict[str, Tensor], Tensor], others: tuple[dict[str, Tensor], Tensor]) -> None:
    assert list(ours[0]) == list(others[0])
    assert all(torch.equal(ours[0][name], others[0][name]) for name in others[0])
    assert torch.equal(ours[1], others[1])


def test_a_plain_vit_clip_of_open_clip_is_known_and_no_other_network() -> None:
    backbones = known_backbones()
    assert {"ViT-B-16-quickgelu", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "ViT-M-16-alt", "irra-tiny"} <= set(backbones)
    assert not {"RN50", "coca_ViT-B-32", "ViT-B-16-SigLIP", "roberta-ViT-B-32", "convnext_base"} & set(backbones)


@pytest.mark.parametrize("name", known_backbones())
def test_a_backbone_has_open_clip_s_parameters_in_its_order(name: str) -> None:
    config = read_config(name)
    with torch.device("meta"):
        assert shapes(CLIP(**config)) == shapes(open_clip.CLIP(**config))


@pytest.mark.parametrize(
    "config",
    [
        architecture(),
        architecture() | {"quick_gelu": False},
        architecture() | {"embed_dim": 24},
        changed(image_size=48),
        changed(mlp_ratio=4.3637, width=24),
        changed(ls_init_value=1e-4),
    ],
    ids=json.dumps,
)
def test_a_new_clip_has_open_clip_s_weights(config: dict[str, Any]) -> None:
    assert_equal_bits(seeded(CLIP, **config), seeded(open_clip.CLIP, **config))


def test_a_new_transformer_has_open_clip_s_weights() -> None:
    others = seeded(theirs.Transformer, 16, 2, 4, act_layer=theirs.QuickGELU)
    assert_equal_bits(seeded(Transformer, 16, 2, 4, QuickGELU), others)


@pytest.mark.parametrize("config", [changed(), changed(ls_init_value=0.5), changed(mlp_ratio=2.0)], ids=json.dumps)
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_blocks_compute_the_same_as_with_open_clip_s_modules(config: dict[str, Any], quick_gelu: bool) -> None:
    torch.manual_seed(0)
    others: Any = open_clip.CLIP(**config | {"quick_gelu": quick_gelu})
    ours = CLIP(**config | {"quick_gelu": quick_gelu})
    ours.load_state_dict(others.state_dict())
    x = torch.randn(3, 9, 16)
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            mine, expected = (run_blocks(clip.visual.transformer, clip.visual.ln_pre(x)) for clip in (ours, others))
        assert mine.dtype == expected.dtype
        if quick_gelu:  # which is rounded in other places, as silu
            rounding = 4 * torch.finfo(precision).eps
            torch.testing.assert_close(mine, expected, rtol=rounding, atol=rounding)
        else:
            assert torch.equal(mine, expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_layer_norm_keeps_the_type_of_its_input(kind: torch.dtype) -> None:
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).to(kind)
    with torch.autocast("cpu", torch.bfloat16):
        mine, expected = LayerNorm(16)(x), theirs.LayerNorm(16)(x)
    assert mine.dtype == expected.dtype == kind
    assert torch.equal(mine, expected)
