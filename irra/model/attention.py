"""CLIP's transformer blocks, run through fused attention kernels.

A causal flag replaces CLIP's float mask, which would rule out the fast kernels, and attention without a mask gets none.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from irra.model.modules import Transformer


def attend(
    attention: nn.MultiheadAttention, query: Tensor, memory: Tensor, causal: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Attention (B, N, D) of `query` (B, N, D) over `memory` (B, M, D), with the weights of torch's module.

    Args:
        attention: The weights, and in training the share of attention weights that is dropped.
        query, memory: The same object in self-attention.
        causal: Whether position n attends to memory up to n only.
        mask: (B, 1, N, M) bool, what may be attended to.
    """
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    width, heads = attention.embed_dim, attention.num_heads
    if query is memory:
        q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
    else:
        weights, biases = (torch.split(x, [width, 2 * width]) for x in (weight, bias))
        q = F.linear(query, weights[0], biases[0])
        k, v = F.linear(memory, weights[1], biases[1]).chunk(2, dim=-1)
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    dropout = attention.dropout if attention.training else 0.0
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    output: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return output


def run_blocks(transformer: Transformer, x: Tensor, causal: bool = False, recompute: bool = False) -> Tensor:
    """Run all residual blocks of `transformer` on `x` (B, N, D).

    With `recompute`, the backward pass computes each block again instead of keeping what it computed.
    """
    return _run(transformer.resblocks, x, causal, recompute)


def run_blocks_at(
    transformer: Transformer, x: Tensor, positions: Tensor, causal: bool = False, recompute: bool = False
) -> Tensor:
    """Run all residual blocks on `x` (B, N, D), and return the (B, M, D) outputs at `positions` (B, M).

    The last block computes outputs only there; all positions serve it as keys and values.
    """
    x = run_but_last(transformer, x, causal, recompute)
    return run_last_at(transformer, x, positions, causal)


def run_but_last(transformer: Transformer, x: Tensor, causal: bool = False, recompute: bool = False) -> Tensor:
    """Run all residual blocks but the last one on `x` (B, N, D)."""
    blocks: list[Any] = list(transformer.resblocks)
    return _run(blocks[:-1], x, causal, recompute)


def run_last(transformer: Transformer, x: Tensor, causal: bool = False, recompute: bool = False) -> Tensor:
    """Run the last residual block on what `run_but_last` returns."""
    blocks: list[Any] = list(transformer.resblocks)
    return _run(blocks[-1:], x, causal, recompute)


def run_last_at(transformer: Transformer, x: Tensor, positions: Tensor, causal: bool = False) -> Tensor:
    """The (B, M, D) outputs of `run_last` at `positions` (B, M), which alone are computed."""
    last: Any = transformer.resblocks[-1]
    index = positions[:, :, None].expand(-1, -1, x.shape[2])
    normed = last.ln_1(x)
    seen = torch.arange(x.shape[1], device=x.device) <= positions[:, None, :, None] if causal else None
    x = x.gather(1, index) + last.ls_1(attend(last.attn, normed.gather(1, index), normed, mask=seen))
    output: Tensor = x + last.ls_2(last.mlp(last.ln_2(x)))
    return output


@torch.no_grad()
def last_attention(transformer: Transformer, x: Tensor, position: Tensor, causal: bool = False) -> Tensor:
    """Attention (B, N) of the tokens at `position` (B, 1) in the last block, on what `run_but_last` returns.

    It is float32, the mean over the heads, and has no gradient. No other row is computed.
    """
    last: Any = transformer.resblocks[-1]
    width, heads = last.attn.embed_dim, last.attn.num_heads
    normed = last.ln_1(x)
    weights, biases = (part[: 2 * width].chunk(2) for part in (last.attn.in_proj_weight, last.attn.in_proj_bias))
    at = normed.gather(1, position[:, :, None].expand(-1, -1, width))
    query, key = (F.linear(x, *part) for x, part in zip((at, normed), zip(weights, biases, strict=True), strict=True))
    query, key = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key))
    scores = (query @ key.transpose(2, 3) * (width // heads) ** -0.5).float()[:, :, 0]
    if causal:
        scores = scores.masked_fill(torch.arange(x.shape[1], device=x.device) > position[:, None], -torch.inf)
    mean: Tensor = scores.softmax(dim=-1).mean(dim=1)
    return mean


def _run(blocks: Iterable[Any], x: Tensor, causal: bool, recompute: bool) -> Tensor:
    for block in blocks:
        if recompute and torch.is_grad_enabled():
            drops = block.attn.dropout > 0.0  # and must drop the same again
            x = checkpoint(_block, block, x, causal, use_reentrant=False, preserve_rng_state=drops)
        else:
            x = _block(block, x, causal)
    return x


def _block(block: Any, x: Tensor, causal: bool) -> Tensor:
    normed = block.ln_1(x)
    x = x + block.ls_1(attend(block.attn, normed, normed, causal))
    output: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return output
