"""Masking: its statistics, and what it may never touch."""

import numpy as np
import pytest
from numpy.typing import NDArray

from irra.data.masking import END_ID, MASK_ID, START_ID, Masked, mask_tokens, place_chosen

WORDS = 20


@pytest.fixture(scope="module")
def rows() -> NDArray[np.uint16]:
    rng = np.random.default_rng(0)
    rows = np.zeros((20_000, 32), np.uint16)
    rows[:, 0] = START_ID
    rows[:, 1 : WORDS + 1] = rng.integers(1, MASK_ID, (20_000, WORDS))
    rows[:, WORDS + 1] = END_ID
    return rows


@pytest.fixture(scope="module")
def masked(rows: NDArray[np.uint16]) -> Masked:
    return mask_tokens(rows, np.random.default_rng(1), 0.15, 0.8, 0.1)


def test_fifteen_percent_of_words_are_chosen(rows: NDArray[np.uint16], masked: Masked) -> None:
    # rows without a choice get one: P = 0.85^20
    expected = 0.15 + 0.85**WORDS / WORDS
    assert masked.chosen[:, 1 : WORDS + 1].mean() == pytest.approx(expected, abs=0.003)


def test_chosen_words_become_mask_random_or_stay_as_80_10_10(rows: NDArray[np.uint16], masked: Masked) -> None:
    many = masked.chosen.sum(axis=1) > 1  # without the rows that were forced to have one
    before, after = rows[many][masked.chosen[many]], masked.mlm_ids[many][masked.chosen[many]]
    assert (after == MASK_ID).mean() == pytest.approx(0.8, abs=0.01)
    assert (after == before).mean() == pytest.approx(0.1, abs=0.01)


def test_random_words_cover_the_vocabulary_evenly(rows: NDArray[np.uint16], masked: Masked) -> None:
    random = masked.mlm_ids[masked.chosen & (masked.mlm_ids != MASK_ID) & (masked.mlm_ids != rows)]
    assert random.min() >= 1
    assert random.max() < MASK_ID
    assert random.mean() == pytest.approx(MASK_ID / 2, rel=0.02)


def test_start_end_and_padding_are_never_chosen(rows: NDArray[np.uint16], masked: Masked) -> None:
    special = (rows == START_ID) | (rows == END_ID) | (rows == 0)
    assert not masked.chosen[special].any()


def test_everything_not_chosen_stays(rows: NDArray[np.uint16], masked: Masked) -> None:
    np.testing.assert_array_equal(masked.mlm_ids[~masked.chosen], rows[~masked.chosen])


def test_every_row_has_a_chosen_word_and_position_1_is_the_fallback(rows: NDArray[np.uint16]) -> None:
    masked = mask_tokens(rows, np.random.default_rng(1), 1e-9, 0.8, 0.1)
    assert masked.chosen[:, 1].all()
    assert masked.chosen.sum() == len(rows)
    assert (masked.mlm_ids[:, 1] == MASK_ID).all()


def test_a_row_without_words_keeps_its_end() -> None:
    rows = np.array([[START_ID, END_ID, 0, 0]], dtype=np.uint16)
    masked = mask_tokens(rows, np.random.default_rng(1), 0.5, 0.8, 0.1)
    assert not masked.chosen.any()
    np.testing.assert_array_equal(masked.mlm_ids, rows)


def test_equal_seeds_mask_equally(rows: NDArray[np.uint16], masked: Masked) -> None:
    again = mask_tokens(rows, np.random.default_rng(1), 0.15, 0.8, 0.1)
    np.testing.assert_array_equal(masked.mlm_ids, again.mlm_ids)


def test_places_are_the_chosen_positions_padded_to_a_width() -> None:
    chosen = np.zeros((3, 7), dtype=bool)
    chosen[0, [1, 6]] = chosen[2, 4] = True
    placed = place_chosen(chosen, width=3)
    np.testing.assert_array_equal(placed.positions, [[1, 6, 0], [0, 0, 0], [4, 0, 0]])
    np.testing.assert_array_equal(placed.slots, [0, 1, 6])
    assert place_chosen(chosen).positions.shape == (3, 2)
