"""Transformer blocks of open_clip run through fused attention kernels.

The modules and their weights stay open_clip's. Only the call differs: a causal flag in place of a float mask, which
would keep attention off the fast kernels, and no mask where there is none.
"""

import torch.nn.functional as F
from open_clip.transformer import Transformer
from torch import Tensor, nn


def attend(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
    """Attention of `query` (B, N, D) over `memory` (B, M, D) with the weights of torch's module; (B, N, D)."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    width, heads = attention.embed_dim, attention.num_heads
    if query is memory:
        q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
    else:
        q = F.linear(query, weight[:width], bias[:width])
        k, v = F.linear(memory, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    output: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return output


def run_blocks(transformer: Transformer, x: Tensor, causal: bool = False) -> Tensor:
    """All residual blocks of `transformer` over `x` (B, N, D)."""
    for block in transformer.resblocks:
        normed = block.ln_1(x)
        x = x + block.ls_1(attend(block.attn, normed, normed, causal))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x
