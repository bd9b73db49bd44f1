"""Sheets that say why pictures were found."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.figures.explanation import (
    SHADE,
    ExplainedQuery,
    ExplanationRow,
    explanation_sheet,
    heat_map,
    placed_words,
    shade,
)
from components.figures.text import load_face

GREY = np.full((64, 32, 3), 128, np.uint8)


def row(heat: np.ndarray, words: list[tuple[str, float]]) -> ExplanationRow:
    return ExplanationRow("rank 1", GREY, heat.astype(np.float32), words)


def drawn(path: Path, *rows: ExplanationRow) -> np.ndarray:
    return sheet(path, ExplainedQuery("a red coat", rows))


def sheet(path: Path, *queries: ExplainedQuery) -> np.ndarray:
    explanation_sheet(path / "why.png", queries)
    return np.asarray(Image.open(path / "why.png").convert("RGB"))


def test_a_picture_without_heat_stays_as_it_is() -> None:
    np.testing.assert_array_equal(heat_map(GREY, np.zeros((64, 32), np.float32)), GREY)


def test_heat_is_yellow_where_it_is_strongest() -> None:
    heat = np.zeros((64, 32), np.float32)
    heat[10, 20] = 1.0
    red, green, blue = heat_map(GREY, heat)[10, 20].tolist()
    assert red > green > blue
    np.testing.assert_array_equal(heat_map(GREY, heat)[11], GREY[11])


def test_a_heat_of_another_size_is_refused() -> None:
    with pytest.raises(AssertionError, match="heat is"):
        heat_map(GREY, np.zeros((32, 32), np.float32))


@pytest.mark.parametrize(("importance", "colour"), [(0.0, (255, 255, 255)), (1.0, SHADE)])
def test_words_are_shaded_by_importance(importance: float, colour: tuple[int, int, int]) -> None:
    assert shade(importance) == colour


def test_only_words_that_mattered_are_shaded(tmp_path: Path) -> None:
    nothing = np.zeros((64, 32))
    plain = drawn(tmp_path, row(nothing, [("a", 0.0), ("red", 0.0), ("coat", 0.0)]))
    marked = drawn(tmp_path, row(nothing, [("a", 0.0), ("red", 1.0), ("coat", 0.0)]))
    changed = (np.abs(plain.astype(int) - marked) > 100).any(axis=2)  # not where only the palette differs
    assert 200 < changed.sum() < 3000
    assert (marked[changed] == SHADE).all(axis=1).mean() > 0.5


def test_every_query_stands_above_its_pictures(tmp_path: Path) -> None:
    pictures = [row(np.zeros((64, 32)), [("coat", 0.0)])] * 2
    one = sheet(tmp_path, ExplainedQuery("a coat", pictures))
    two = sheet(tmp_path, ExplainedQuery("a coat", pictures), ExplainedQuery("a long " * 40, pictures))
    other = sheet(tmp_path, ExplainedQuery("a boot", pictures))
    assert one.shape[0] < two.shape[0] < 2 * one.shape[0]  # one heading in both
    changed = np.flatnonzero((np.abs(one.astype(int) - other) > 100).any(axis=(1, 2)))
    assert 0 < np.ptp(changed) < 25  # one line of text


def test_the_legend_is_as_hot_as_a_heat_map(tmp_path: Path) -> None:
    picture = drawn(tmp_path, row(np.zeros((64, 32)), []))
    assert (picture == SHADE).all(axis=2).sum() >= 10
    red, green, blue = np.moveaxis(picture.astype(int), 2, 0)
    assert ((red > 200) & (green - blue > 60) & (red > green)).sum() > 100


@pytest.mark.parametrize("word", ["coat", "i"])
def test_words_that_do_not_fit_end_in_an_ellipsis(word: str) -> None:
    face = load_face(15)
    *kept, (x, y, last, importance) = placed_words((0, 0, 100, 60), [(word, 1.0)] * 500, face)
    assert {text for _, _, text, _ in kept} == {word}
    assert (last, importance) == ("…", 0.0)
    assert x + face.font.getlength(last) <= 100
    assert y < 60


def test_words_that_fit_are_all_there() -> None:
    words = [("red", 1.0), ("coat", 0.5)]
    assert [place[2:] for place in placed_words((0, 0, 100, 60), words, load_face(15))] == words


def test_a_long_query_stays_inside_its_cell(tmp_path: Path) -> None:
    short = drawn(tmp_path, *[row(np.zeros((64, 32)), [("coat", 0.0)])] * 2)
    endless = drawn(tmp_path, *[row(np.zeros((64, 32)), [("coat", 0.0)] * 500)] * 2)
    assert short.shape == endless.shape
    assert (endless[-10:] == 255).all()
