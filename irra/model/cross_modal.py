"""The cross-modal branch, which predicts masked words from the image (IRRA, section 3.2); used in training only."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from irra.model.attention import attend, run_blocks_at
from irra.model.modules import LayerNorm, QuickGELU, Transformer

HEADS, HEAD_WIDTH = 8, 64  # of attention, as in the paper at width 512; wider models get more heads, never fewer


class CrossModalEncoder(nn.Module):
    """Cross-attention from text to image tokens, `depth` transformer blocks, and a head over `vocabulary` tokens."""

    def __init__(self, width: int, depth: int, vocabulary: int) -> None:
        super().__init__()
        heads = max(HEADS, width // HEAD_WIDTH)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross_modal_transformer = Transformer(width, depth, heads, QuickGELU)
        self.ln_pre_t = LayerNorm(width)
        self.ln_pre_i = LayerNorm(width)
        self.ln_post = LayerNorm(width)
        dense, fc = nn.Linear(width, width), nn.Linear(width, vocabulary)
        self.mlm_head = nn.Sequential(OrderedDict(dense=dense, gelu=QuickGELU(), ln=LayerNorm(width), fc=fc))
        self._initialise(width, depth)
        nn.init.normal_(dense.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(fc.weight, std=width**-0.5 * (2 * depth) ** -0.5)

    def _initialise(self, width: int, depth: int) -> None:
        attention_std, output_std, inner_std = width**-0.5, width**-0.5 * (2 * depth) ** -0.5, (2 * width) ** -0.5
        blocks: list[Any] = list(self.cross_modal_transformer.resblocks)
        for attention in (self.cross_attn, *(block.attn for block in blocks)):
            nn.init.normal_(attention.in_proj_weight, std=attention_std)
            nn.init.normal_(attention.out_proj.weight, std=output_std)
        for block in blocks:
            nn.init.normal_(block.mlp.c_fc.weight, std=inner_std)
            nn.init.normal_(block.mlp.c_proj.weight, std=output_std)

    def forward(self, text_tokens: Tensor, image_tokens: Tensor, positions: Tensor, recompute: bool = False) -> Tensor:
        """Fuse text tokens (B, L, D) with image tokens (B, P, D); features (B, M, D) at `positions` (B, M).

        All L positions attend to each other, including padding, so L must not be trimmed.
        """
        x = attend(self.cross_attn, self.ln_pre_t(text_tokens), self.ln_pre_i(image_tokens))
        x = run_blocks_at(self.cross_modal_transformer, x, positions, recompute=recompute)
        fused: Tensor = self.ln_post(x)
        return fused
