"""CLIP's transformer blocks, run through fused attention kernels.

They compute what open_clip's do. Only the call differs: a causal flag replaces the float mask, which would rule out the
fast kernels, and attention without a mask gets none.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irra.model.modules import Transformer


def attend(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
    """Attention (B, N, D) of `query` (B, N, D) over `memory` (B, M, D), with the weights of torch's module."""
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


def run_blocks_at(transformer: Transformer, x: Tensor, chosen: Tensor) -> Tensor:
    """Run all residual blocks of `transformer` on `x` (B, N, D), and return the (chosen, D) outputs at `chosen`.

    The last block computes outputs only at the chosen positions; the other positions serve as keys and values.

    Args:
        chosen: (B, N) bool.
    """
    blocks: list[Any] = list(transformer.resblocks)
    *first, last = blocks
    x = _run(first, x, causal=False)
    normed = last.ln_1(x)
    columns, present = _packed(chosen)
    index = columns[:, :, None].expand(-1, -1, x.shape[2])
    attended = attend(last.attn, normed.gather(1, index), normed)
    y = (x.gather(1, index) + last.ls_1(attended))[present]
    output: Tensor = y + last.ls_2(last.mlp(last.ln_2(y)))
    return output


def _packed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Column indices (B, M) with each row's chosen ones first, and the mask (B, M) of those.

    M is the largest number of chosen columns in a row.
    """
    counts = chosen.sum(dim=1)
    longest = int(counts.max())
    columns = chosen.long().argsort(dim=1, descending=True, stable=True)[:, :longest]
    return columns, torch.arange(longest, device=chosen.device) < counts[:, None]


def run_blocks(transformer: Transformer, x: Tensor, causal: bool = False) -> Tensor:
    """Run all residual blocks of `transformer` on `x` (B, N, D)."""
    return _run(transformer.resblocks, x, causal)


def _run(blocks: Iterable[Any], x: Tensor, causal: bool) -> Tensor:
    for block in blocks:
        normed = block.ln_1(x)
        x = x + block.ls_1(attend(block.attn, normed, normed, causal))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x
