"""Text augmentation against slow loops over words, and against captions that RDE's released code has altered."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from irra.config import TrainConfig
from irra.data.masking import END_ID, MASK_ID, START_ID
from irra.data.text_augment import eda, eda_at, rde, rde_at, word_ends
from irra.data.tokens import Tokenizer, token_rows

Row = list[int]

# Captions, and what the released code changes in them at which positions, one after the other from random.seed(152).
# The second has a mask and an id 0, the third as many tokens as there can be. Nothing was deleted from them.
RECORDED: list[tuple[str, dict[int, int]]] = [
    (
        "42447 26231 17408 6467 41071 44049 34390 24525",
        {2: 13119, 7: MASK_ID},
    ),
    (
        "42719 46593 26833 49405 30258 26855 10733 26912 0 30594 24604 1893 790 29130 2457 26434 295 3420 5367 44773",
        {10: MASK_ID},
    ),
    (
        "1395 25653 27819 38535 24188 25660 32861 34819 19664 34450 45831 829 23801 1400 49178 12057 3198 "
        "14230 6533 12863 5028 45480 27137 19623 21462 14569 23110 11388 37331 42032 18504 26730 48553 33199 "
        "8426 6266 22017 45333 24623 34611 20168 3722 20288 15317 27418 23822 40765 37609 46526 23487 45737 "
        "36563 2762 45739 26286 21137 33476 36820 45470 47580 22944 19738 11151 6919 34027 17033 42070 46700 "
        "3248 39788 5681 8713 20114 20835 28522",
        {
            1: MASK_ID,
            2: 4337,
            5: MASK_ID,
            8: MASK_ID,
            14: MASK_ID,
            15: 21888,
            23: MASK_ID,
            33: MASK_ID,
            35: MASK_ID,
            43: 29888,
            50: MASK_ID,
            58: MASK_ID,
            60: MASK_ID,
            61: MASK_ID,
            67: MASK_ID,
            71: MASK_ID,
        },
    ),
]


def slow_rde(ids: Row, draw: Callable[[], float], choose: Callable[[], int]) -> Row:
    """One id after the other, with the draws of the released code in its order; zeros are not appended."""
    altered = []
    for i in ids:
        chance = draw() / 0.2 if 0 < i < MASK_ID else 1.0
        if chance < 0.6:
            altered.append(MASK_ID)
        elif chance < 0.8:
            altered.append(choose())
        elif chance >= 1.0:
            altered.append(i)
    return altered


def row(words: Row, length: int = 0) -> Row:
    return [START_ID, *words, END_ID] + [0] * (length - 2 - len(words))


def rows(captions: Sequence[Row], length: int) -> NDArray[np.uint16]:
    return np.array([row(words, length) for words in captions], np.uint16)


@pytest.fixture(scope="module")
def ends() -> NDArray[np.bool_]:
    return word_ends()


@pytest.fixture(scope="module")
def captions() -> NDArray[np.uint16]:
    """2,000 rows of 0 to 14 tokens, some of which are masks and zeros."""
    rng = np.random.default_rng(0)
    made = [rng.integers(1, MASK_ID, rng.integers(0, 15)) for _ in range(2000)]
    for words in made[::7]:
        words[rng.random(len(words)) < 0.2] = MASK_ID
        words[rng.random(len(words)) < 0.1] = 0
    return rows([words.tolist() for words in made], 16)


def test_the_slow_loop_alters_captions_as_the_released_code_did_with_the_same_draws() -> None:
    source = random.Random(152)
    vocabulary = list(range(1, MASK_ID))
    for text, changes in RECORDED:
        before = row([int(i) for i in text.split()])
        after = [changes.get(place - 1, i) for place, i in enumerate(before)]
        assert slow_rde(before, source.random, lambda: source.choice(vocabulary)) == after


def test_rde_alters_captions_as_the_slow_loop_does_with_the_same_draws(captions: NDArray[np.uint16]) -> None:
    rng = np.random.default_rng(1)
    draws, random_ids = rng.random(captions.shape), rng.integers(1, MASK_ID, captions.shape, np.uint16)
    altered = rde_at(captions, draws, random_ids)
    compared = 0
    for before, after, chances, others in zip(captions.tolist(), altered, draws, random_ids, strict=True):
        # draws are used up for eligible ids alone, as in the loop
        chance = iter([x for i, x in zip(before, chances, strict=True) if 0 < i < MASK_ID])
        other = iter(
            [o for i, x, o in zip(before, chances, others, strict=True) if 0 < i < MASK_ID and 0.12 <= x < 0.16]
        )
        expected = slow_rde(before, lambda c=chance: next(c), lambda o=other: int(next(o)))
        if any(0 < i < START_ID for i in expected) or not any(0 < i < START_ID for i in before):
            assert after.tolist() == expected + [0] * (len(before) - len(expected))
            compared += 1
    assert compared > 1900


def test_rde_never_empties_a_caption_and_leaves_the_empty_ones() -> None:
    one, none = rows([[7]] * 2000, 5), rows([[]] * 10, 5)
    altered = rde(one, np.random.default_rng(0))
    assert (altered[:, 0] == START_ID).all()
    assert (altered[:, 2] == END_ID).all()
    assert (altered[:, 3:] == 0).all()
    assert np.array_equal(rde(none, np.random.default_rng(0)), none)


def test_rde_keeps_the_first_of_several_words_that_it_would_all_delete() -> None:
    everything = np.full((2, 6), 0.19)
    ids = rows([[5, 6, 7], [0, 8, 9]], 6)
    assert rde_at(ids, everything, ids).tolist() == [row([5], 6), row([0, 8], 6)]


def test_rde_has_its_rates() -> None:
    words = np.arange(1, 41)
    ids = rows([words.tolist()] * 4000, 42)
    altered = rde(ids, np.random.default_rng(0))
    total = words.size * len(ids)
    assert (altered == MASK_ID).sum() / total == pytest.approx(0.12, abs=0.003)
    assert ((altered > words.max()) & (altered < MASK_ID)).sum() / total == pytest.approx(0.04, abs=0.002)
    assert (altered == 0).sum() / total == pytest.approx(0.04, abs=0.002)
    assert ((altered > 0) & (altered <= words.max())).sum() / total == pytest.approx(0.8, abs=0.004)


def words_of(ids: Row, ends: NDArray[np.bool_]) -> list[Row]:
    """The words of a row, one piece after the other."""
    inner = ids[1 : ids.index(END_ID)]
    words: list[Row] = [[]] if inner else []
    for piece, following in pairwise([*inner, END_ID]):
        words[-1].append(piece)
        if ends[piece] and following != END_ID:
            words.append([])
    return words


def slow_eda(ids: Row, ends: NDArray[np.bool_], draws: NDArray[np.float64], spared: float) -> Row:
    """TBPS-CLIP's deletion, one word after the other."""
    words = words_of(ids, ends)
    kept = [word for word, draw in zip(words, draws, strict=False) if draw > 0.05]
    if words and not kept:
        kept = [words[int(spared * len(words))]]
    return row([piece for word in kept for piece in word], len(ids))


def test_eda_deletes_words_as_the_slow_loop_does_with_the_same_draws(
    captions: NDArray[np.uint16], ends: NDArray[np.bool_]
) -> None:
    rng = np.random.default_rng(2)
    draws, spared = rng.random(captions.shape) ** 2, rng.random(len(captions))  # more often small
    altered = eda_at(captions, ends, draws, spared)
    expected = [slow_eda(*args) for args in zip(captions.tolist(), [ends] * 2000, draws, spared, strict=True)]
    assert altered.tolist() == expected
    assert (altered != captions).any(axis=1).mean() > 0.5


def test_words_of_the_tokenizer_are_deleted_whole(ends: NDArray[np.bool_]) -> None:
    tokenizer = Tokenizer()
    text = ["a", "windbreaker", "paraglider", ",", "greenish", "flipflops", "."]
    ids = tokenizer.encode([" ".join(text)] * 500, 32)
    assert len(words_of(ids[0].tolist(), ends)) == len(text) < (ids[0] > 0).sum() - 2
    altered = {tokenizer.decode(found) for found in eda(ids, ids, np.zeros(500, bool), ends, np.random.default_rng(0))}
    assert len(altered) > 7
    for caption in altered:
        remaining = iter(text)
        assert all(word in remaining for word in caption.split()), "some words are missing, and none has changed"


def test_a_cut_caption_s_last_word_counts_although_its_end_is_missing(ends: NDArray[np.bool_]) -> None:
    ids = token_rows([Tokenizer().words("windbreaker")[:1]], 4)
    assert not ends[ids[0, 1]]
    assert np.array_equal(eda_at(ids, ends, np.zeros((1, 4)), np.zeros(1)), ids)


def test_eda_has_its_rate_and_never_deletes_the_only_word(ends: NDArray[np.bool_]) -> None:
    word = Tokenizer().words("man")
    many, one = rows([word * 40] * 4000, 42), rows([word] * 2000, 4)
    none = np.zeros(4000, bool)
    deleted = (eda(many, many, none, ends, np.random.default_rng(0)) == 0).sum() / (40 * 4000)
    assert deleted == pytest.approx(0.05, abs=0.002)
    assert np.array_equal(eda(one, one, none[:2000], ends, np.random.default_rng(0)), one)


def test_a_tenth_of_the_captions_that_have_twins_become_those(ends: NDArray[np.bool_]) -> None:
    here, there = Tokenizer().words("man"), Tokenizer().words("woman")
    ids, twins = rows([here] * 8000, 4), rows([there] * 8000, 4)
    present = np.arange(8000) % 2 == 0
    changed = (eda(ids, twins, present, ends, np.random.default_rng(0)) == there[0]).any(axis=1)
    assert not changed[~present].any()
    assert changed[present].mean() == pytest.approx(0.1, abs=0.015)


def test_altered_captions_that_masked_ones_would_replace_are_refused() -> None:
    with pytest.raises(ValueError, match=r"set train\.mask_global_text: false"):
        TrainConfig(loss_names="sdm+mlm", txt_aug="rde")
    TrainConfig(loss_names="sdm+mlm", txt_aug="rde", mask_global_text=False)
    TrainConfig(loss_names="tal", txt_aug="rde")
