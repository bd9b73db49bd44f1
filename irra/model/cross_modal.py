"""The cross-modal branch: predicts masked words from the picture (IRRA, section 3.2); used in training only."""

from collections import OrderedDict

from open_clip.transformer import LayerNorm, QuickGELU, Transformer
from torch import Tensor, nn

from irra.model.attention import attend, run_blocks_at

HEADS, HEAD_WIDTH = 8, 64  # of attention: as in the paper at width 512; wider models have more heads, none has fewer


class CrossModalEncoder(nn.Module):
    """One cross-attention from text to image tokens, `depth` transformer blocks, a head over `vocabulary` tokens."""

    def __init__(self, width: int, depth: int, vocabulary: int) -> None:
        super().__init__()
        heads = max(HEADS, width // HEAD_WIDTH)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross_modal_transformer = Transformer(width, depth, heads, act_layer=QuickGELU)
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
        for attention in (self.cross_attn, *(block.attn for block in self.cross_modal_transformer.resblocks)):
            nn.init.normal_(attention.in_proj_weight, std=attention_std)
            nn.init.normal_(attention.out_proj.weight, std=output_std)
        for block in self.cross_modal_transformer.resblocks:
            nn.init.normal_(block.mlp.c_fc.weight, std=inner_std)
            nn.init.normal_(block.mlp.c_proj.weight, std=output_std)

    def forward(self, text_tokens: Tensor, image_tokens: Tensor, chosen: Tensor) -> Tensor:
        """Text tokens (B, L, D) that have looked at image tokens (B, P, D), at `chosen` (B, L) bool; (chosen, D).

        All L positions attend to each other, padding included, so that L must not be trimmed.
        """
        x = attend(self.cross_attn, self.ln_pre_t(text_tokens), self.ln_pre_i(image_tokens))
        fused: Tensor = self.ln_post(run_blocks_at(self.cross_modal_transformer, x, chosen))
        return fused
