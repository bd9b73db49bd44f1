"""Text augmentation of whole batches of token rows: RDE's on tokens, TBPS-CLIP's on words.

A function that ends in `_at` is given all its random draws, and the others draw them for the whole batch. Rows are
(N, L) uint16 of start, tokens, end and padding 0; start and end survive, and padding fills what deletions free.
"""

import numpy as np
from numpy.typing import NDArray

from irra.data.bpe import END_OF_WORD, SPECIAL, BytePairs
from irra.data.masking import END_ID, MASK_ID, START_ID

# RDE: of the tokens; and of those that are altered, cumulated: masked, replaced, and the rest deleted.
ALTERED, MASKED, REPLACED = 0.2, 0.6, 0.8
# TBPS-CLIP: captions that are replaced by their translation to another language and back, and words that are deleted.
TRANSLATED, WORDS_DELETED = 0.1, 0.05

Rows = NDArray[np.uint16]


def rde(ids: Rows, rng: np.random.Generator) -> Rows:
    """Mask 12%, replace 4% and delete 4% of the tokens, independently (released code of RDE, CVPR 2024).

    Ids 1..49404 may be altered: neither start and end, nor id 0 and masks that a caption already has.
    """
    return rde_at(ids, rng.random(ids.shape), rng.integers(1, MASK_ID, size=ids.shape, dtype=np.uint16))


def rde_at(ids: Rows, draws: NDArray[np.float64], random_ids: Rows) -> Rows:
    """`rde` with given draws.

    Where no token would be left, the first stays as it is. The released code empties such a caption (69 of 2,000 with
    one word), and then computes nan from it.

    Args:
        ids: (N, L) rows.
        draws: (N, L) in [0, 1), which decide what happens to each token.
        random_ids: (N, L) tokens to replace others by.
    """
    kind = np.where((ids > 0) & (ids < MASK_ID), draws / ALTERED, np.inf)
    deleted = (kind >= REPLACED) & (kind < 1.0)
    words = (ids > 0) & (ids < START_ID)
    emptied = np.flatnonzero(words.any(axis=1) & ~(words & ~deleted).any(axis=1))
    kept = words[emptied].argmax(axis=1)
    deleted[emptied, kept] = False
    altered = np.where(kind < MASKED, np.uint16(MASK_ID), np.where(kind < REPLACED, random_ids, ids))
    return _without(altered, deleted)


def eda(ids: Rows, twins: Rows, present: NDArray[np.bool_], ends: NDArray[np.bool_], rng: np.random.Generator) -> Rows:
    """Replace 10% of the captions by their back-translated twins, then delete 5% of the words (TBPS-CLIP, AAAI 2024).

    Words are those of the tokenizer: a word ends with a piece that says so, or where its caption is cut. A punctuation
    mark or a part of a hyphenated word is thus a word of its own. The released code, which deletes before it tokenizes,
    splits at spaces alone, and turns . ! " ( ) * # : ; ~ into spaces first, in evaluation as well; here they stay in
    both, so that training does not lack what a query has.

    Args:
        ids: (N, L) rows.
        twins: (N, L) rows of their twins.
        present: (N,) which of them have a twin; the others are never replaced.
        ends: (V,) as `word_ends` gives it.
        rng: Source of all draws.
    """
    replaced = present & (rng.random(len(ids)) < TRANSLATED)
    rows = np.where(replaced[:, None], twins, ids)
    return eda_at(rows, ends, rng.random(rows.shape), rng.random(len(rows)))


def eda_at(ids: Rows, ends: NDArray[np.bool_], draws: NDArray[np.float64], spared: NDArray[np.float64]) -> Rows:
    """The deletion of words in `eda` with given draws.

    Args:
        ids: (N, L) rows.
        ends: (V,) as `word_ends` gives it.
        draws: (N, L) in [0, 1), the first of a row for its first word and so on.
        spared: (N,) in [0, 1), which choose the word that stays where none would be left.
    """
    position, end = np.arange(ids.shape[1]), (ids == END_ID).argmax(axis=1)
    begins = np.pad(ends[ids[:, :-1]], ((0, 0), (1, 0)))
    word = np.maximum(begins.cumsum(axis=1) - 1, 0)  # the number of each position's word
    count = (begins & (position < end[:, None])).sum(axis=1)
    dropped = draws <= WORDS_DELETED
    emptied = np.flatnonzero((dropped | (position >= count[:, None])).all(axis=1))
    dropped[emptied, (spared[emptied] * count[emptied]).astype(np.int64)] = False
    inside = (position > 0) & (position < end[:, None])
    return _without(ids, np.take_along_axis(dropped, word, axis=1) & inside)


def word_ends() -> NDArray[np.bool_]:
    """(V,) whether another word begins behind a token: it is the last piece of one, or start or end."""
    pieces = BytePairs(unused=0, longest=1).pieces
    return np.array([piece.endswith(END_OF_WORD) or piece in SPECIAL for piece in pieces])


def _without(ids: Rows, deleted: NDArray[np.bool_]) -> Rows:
    """The rows without their `deleted` (N, L) positions: later ones move forward, and zeros follow."""
    return np.take_along_axis(np.where(deleted, np.uint16(0), ids), deleted.argsort(axis=1, kind="stable"), axis=1)
