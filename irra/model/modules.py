"""CLIP's modules: two transformers, with the names, shapes, order and initial values of weights that open_clip gives.

They hold weights; `irra.model.clip` and `irra.model.attention` run them. They are not open_clip's own, since importing
that takes longer than a search: it loads torchvision, timm and torch's compiler for other networks.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH, MLP_RATIO = 64, 4.0  # where a configuration names none
TEMPERATURE = 0.07
QUICK = 1.702  # of QuickGELU


class LayerNorm(nn.LayerNorm):
    """A layer norm whose output has the type of its input, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """OpenAI's approximation of GELU, x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each value."""
        return F.silu(QUICK * x) / QUICK  # one fused kernel each way, and one tensor less to keep


class LayerScale(nn.Module):
    """A factor for each channel, which starts as `value`."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(value * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last dimension."""
        return x * self.gamma


class Block(nn.Module):
    """A residual block: attention and a perceptron, each after a layer norm."""

    def __init__(
        self, width: int, heads: int, activation: type[nn.Module], mlp_ratio: float, scale: float | None
    ) -> None:
        super().__init__()
        inner = int(width * mlp_ratio)
        self.ln_1 = LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls_1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.ln_2 = LayerNorm(width)
        c_fc, c_proj = nn.Linear(width, inner), nn.Linear(inner, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=c_fc, gelu=activation(), c_proj=c_proj))
        self.ls_2 = nn.Identity() if scale is None else LayerScale(width, scale)


class Transformer(nn.Module):
    """Residual blocks; `scale` is the initial value of their layer scales, None for none."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        activation: type[nn.Module],
        mlp_ratio: float = MLP_RATIO,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, activation, mlp_ratio, scale) for _ in range(layers))


class VisionTransformer(nn.Module):
    """The image encoder."""

    def __init__(
        self,
        outputs: int,
        activation: type[nn.Module],
        image_size: int | list[int],
        layers: int,
        width: int,
        patch_size: int,
        head_width: int = HEAD_WIDTH,
        mlp_ratio: float = MLP_RATIO,
        ls_init_value: float | None = None,
    ) -> None:
        super().__init__()
        height, length = [image_size] * 2 if isinstance(image_size, int) else image_size
        self.image_size, self.patch_size = (height, length), (patch_size, patch_size)
        self.grid_size = (height // patch_size, length // patch_size)
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        deviation = width**-0.5
        self.class_embedding = nn.Parameter(deviation * torch.randn(width))
        positions = 1 + self.grid_size[0] * self.grid_size[1]
        self.positional_embedding = nn.Parameter(deviation * torch.randn(positions, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, width // head_width, activation, mlp_ratio, ls_init_value)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(deviation * torch.randn(width, outputs))


class CLIP(nn.Module):
    """The image encoder, the text encoder and the temperature.

    Args:
        embed_dim: Dimensions that both encoders share.
        vision_cfg: The image encoder's sizes, as in open_clip's configurations.
        text_cfg: The text encoder's sizes, likewise.
        quick_gelu: Whether activations are QuickGELU instead of GELU.
    """

    def __init__(
        self, embed_dim: int, vision_cfg: dict[str, Any], text_cfg: dict[str, int], quick_gelu: bool = False
    ) -> None:
        super().__init__()
        activation = QuickGELU if quick_gelu else nn.GELU
        width, layers = text_cfg["width"], text_cfg["layers"]
        self.visual = VisionTransformer(embed_dim, activation, **vision_cfg)
        token_embedding = nn.Embedding(text_cfg["vocab_size"], width)  # draws its values first
        self.transformer = Transformer(width, layers, text_cfg["heads"], activation)
        self.token_embedding = token_embedding
        self.positional_embedding = nn.Parameter(torch.empty(text_cfg["context_length"], width))
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE)))
        self._initialise_text(width, layers)

    def _initialise_text(self, width: int, layers: int) -> None:
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        blocks: list[Any] = list(self.transformer.resblocks)
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
        nn.init.normal_(self.text_projection, std=width**-0.5)
