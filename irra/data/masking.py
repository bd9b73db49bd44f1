"""Masking of caption tokens for MLM, as in BERT and IRRA."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MASK_ID = 49405
START_ID = 49406
END_ID = 49407
FALLBACK_POSITION = 1


class Masked(NamedTuple):
    """Token rows after masking, and the mask of chosen positions; both (N, L)."""

    mlm_ids: NDArray[np.uint16]
    chosen: NDArray[np.bool_]


class Placed(NamedTuple):
    """Where the chosen tokens of a batch are, so that nothing on a GPU has to wait for how many there are.

    Attributes:
        positions: (B, M) each row's chosen positions, ascending, padded with 0.
        slots: (N,) the indices among all B * M of those that are no padding.
    """

    positions: NDArray[np.int64]
    slots: NDArray[np.int64]


def place_chosen(chosen: NDArray[np.bool_], width: int | None = None) -> Placed:
    """Find the chosen positions (B, L) of a batch; `width` is M, by default the largest number in a row."""
    counts = chosen.sum(axis=1)
    width = int(counts.max()) if width is None else width
    positions = (~chosen).argsort(axis=1, kind="stable")[:, :width]
    present = np.arange(width) < counts[:, None]
    return Placed(np.where(present, positions, 0), np.flatnonzero(present))


def mask_tokens(
    caption_ids: NDArray[np.uint16],
    rng: np.random.Generator,
    mask_probability: float,
    masked_token_rate: float,
    masked_token_unchanged_rate: float,
) -> Masked:
    """Choose tokens and replace most of them (IRRA, section 3.2: 15% chosen; of these 80% mask, 10% random, 10% kept).

    Ids 1..49404 are eligible. If no token of a row was chosen, position 1 is masked, provided that it holds a word.

    Args:
        caption_ids: (N, L) uint16 rows of start, words, end and padding 0.
        rng: Source of all random choices.
        mask_probability: Probability that a token is chosen.
        masked_token_rate: Share of the chosen tokens that become the mask.
        masked_token_unchanged_rate: Share of the chosen tokens that stay; the rest become random tokens.
    """
    draw = rng.random(caption_ids.shape, dtype=np.float32)
    chosen = (caption_ids > 0) & (caption_ids < MASK_ID) & (draw < mask_probability)
    kind = rng.random(np.count_nonzero(chosen), dtype=np.float32)
    random_ids = rng.integers(1, MASK_ID, size=len(kind), dtype=np.uint16)
    kept = kind >= 1.0 - masked_token_unchanged_rate
    replacement = np.where(kind < masked_token_rate, np.uint16(MASK_ID), random_ids)
    mlm_ids = caption_ids.copy()
    mlm_ids[chosen] = np.where(kept, caption_ids[chosen], replacement)
    empty = ~chosen.any(axis=1) & (caption_ids[:, FALLBACK_POSITION] != END_ID)
    chosen[empty, FALLBACK_POSITION] = True
    mlm_ids[empty, FALLBACK_POSITION] = MASK_ID
    return Masked(mlm_ids, chosen)
