import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from components.figures import (
    RetrievalRow,
    SheetRow,
    cmc_curve,
    contact_sheet,
    loss_curves,
    retrieval_sheet,
    validation_curves,
)
from components.figures.ablation import ablation_chart
from components.figures.canvas import FRAME, MARGIN, WIDTH
from components.figures.plots import FONT_POINTS, chart, spread
from components.figures.sheets import RESULT_STEP, RESULT_WIDTH
from components.figures.style import RIGHT, WHITE, WRONG, save_png
from components.figures.text import ELLIPSIS, MISSING, load_face

STRANGE = {
    "mathematics": r"$\frac{a}{b}$ costs $5 and {more_than_that}^2 \unknown",
    "control characters": "null \x00 bell \x07 \u202e reversed \u200b and\nnew\tlines",
    "chinese": "穿红色外套的女人背着黑色的包走在街上" * 3,
    "emoji": "wearing 👖 and 👩🏽‍🦰 with \ud800 half a surrogate",
    "one endless word": "x" * 3000,
    "many words": "word " * 2000,
    "nothing": "",
}
RATES = ([0.5, 1.0, 1.5, 2.0], [1e-5, 1e-5, 2e-5, 2e-5])
LOSS = ([0.5, 1.0, 1.5, 2.0], [4.0, 3.0, 2.5, 2.0])
HISTORY = {"loss/total": LOSS, "loss/sdm": LOSS, "lr/default": RATES, "lr/new": RATES, "ccd/kept": RATES}
METRICS = {"R1": [10.0, 30.0, 20.0], "R5": [20.0, 50.0, 45.0], "mAP": [9.0, 28.0, 21.0]}
CURVES = {"test/t2i": [40.0, 55.0, 60.0], "test/i2t": [45.0, 60.0, 65.0], "val/t2i": [42.0, 50.0, 70.0]}


def person(height: int = 96, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, (height, width, 3)).astype(np.uint8)


def sheet_rows(caption: str = "A person in red.", image: np.ndarray | None = None) -> list[SheetRow]:
    pixels = person() if image is None else image
    return [SheetRow([pixels] * 4, f"train - person {pid}", [caption] * 3) for pid in range(3)]


def retrieval_row(
    right: list[bool], caption: str = "A person in red.", image: np.ndarray | None = None
) -> RetrievalRow:
    pixels = person() if image is None else image
    return RetrievalRow(caption, pixels, [(pixels, 0.9 - 0.1 * k, hit) for k, hit in enumerate(right)], 1)


DRAW: dict[str, Callable[[Path], None]] = {
    "contact_sheet": lambda path: contact_sheet(path, sheet_rows()),
    "loss_curves": lambda path: loss_curves(path, HISTORY),
    "validation_curves": lambda path: validation_curves(path, [1, 2, 3], METRICS, 2),
    "ablation_chart": lambda path: ablation_chart(path, "R1", {"itc": [50.0, 52.0], "sdm": [44.0]}),
    "cmc_curve": lambda path: cmc_curve(path, CURVES),
    "retrieval_sheet": lambda path: retrieval_sheet(path, "Queries", [retrieval_row([True, False])] * 2),
}
WITHOUT_DATA: dict[str, Callable[[Path], None]] = {
    "contact_sheet": lambda path: contact_sheet(path, []),
    "identity without images": lambda path: contact_sheet(path, [SheetRow([], "train", ["a caption"])]),
    "loss_curves": lambda path: loss_curves(path, {}),
    "only learning rates": lambda path: loss_curves(path, {"lr/default": RATES}),
    "loss without values": lambda path: loss_curves(path, {"loss/total": ([], [])}),
    "loss with a value too few": lambda path: loss_curves(path, {"loss/total": ([1.0, 2.0], [1.0])}),
    "validation_curves": lambda path: validation_curves(path, [], {}, 1),
    "metric without values": lambda path: validation_curves(path, [1], {"R1": []}, 1),
    "best epoch that was not validated": lambda path: validation_curves(path, [1, 2, 3], METRICS, 4),
    "cmc_curve": lambda path: cmc_curve(path, {}),
    "recall without ranks": lambda path: cmc_curve(path, {"test/t2i": []}),
    "curve of no direction": lambda path: cmc_curve(path, {"test": [50.0]}),
    "retrieval_sheet": lambda path: retrieval_sheet(path, "Queries", []),
    "query without results": lambda path: retrieval_sheet(path, "Queries", [retrieval_row([])]),
}


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module", params=DRAW)
def lettered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[float]]:
    """A picture, and the sizes of the letters that matplotlib drew in it."""
    path, sizes, draw = tmp_path_factory.mktemp("pictures") / f"{request.param}.png", set(), Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, *rest: (sizes.add(text.get_size()), draw(text, *rest)))
        DRAW[request.param](path)
    return path, sizes


@pytest.fixture
def drawn(lettered: tuple[Path, set[float]]) -> Path:
    return lettered[0]


def test_no_letter_is_smaller_than_the_width_of_charts_allows(lettered: tuple[Path, set[float]]) -> None:
    assert min(lettered[1], default=FONT_POINTS) >= FONT_POINTS


def test_a_picture_is_a_png_of_moderate_size_on_white(drawn: Path) -> None:
    pixels = opened(drawn)
    assert 900 <= pixels.shape[1] <= 1600
    assert 300 <= pixels.shape[0] <= 1600
    assert (pixels == WHITE).all(axis=2).mean() > 0.3
    assert 2_000 < drawn.stat().st_size < 500_000


def test_equal_data_give_equal_bytes_whatever_was_drawn_before(drawn: Path, tmp_path: Path) -> None:
    DRAW[drawn.stem](tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == drawn.read_bytes()


def test_a_picture_carries_no_metadata(drawn: Path) -> None:
    with Image.open(drawn) as picture:
        assert not picture.info


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_missing_data_are_refused_and_the_previous_picture_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"previous")
    with pytest.raises(AssertionError):
        WITHOUT_DATA[name](path)
    assert path.read_bytes() == b"previous"
    assert os.listdir(tmp_path) == ["picture.png"]


def test_images_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="uint8"):
        contact_sheet(tmp_path / "sheet.png", sheet_rows(image=person().astype(np.float32)))


@pytest.mark.parametrize("caption", STRANGE.values(), ids=STRANGE.keys())
@pytest.mark.filterwarnings("error")
def test_strange_captions_are_drawn_without_a_warning(caption: str, tmp_path: Path) -> None:
    retrieval_sheet(tmp_path / "retrieval.png", caption, [retrieval_row([True], caption)])
    contact_sheet(tmp_path / "contact.png", [SheetRow([person()], caption, [caption, caption])])
    opened(tmp_path / "retrieval.png")
    opened(tmp_path / "contact.png")


@pytest.mark.parametrize("shape", [(384, 128), (192, 64), (224, 224), (64, 256), (1, 1)])
def test_images_of_any_shape_are_drawn(shape: tuple[int, int], tmp_path: Path) -> None:
    retrieval_sheet(tmp_path / "retrieval.png", "Queries", [retrieval_row([True] * 10, image=person(*shape))])
    contact_sheet(tmp_path / "contact.png", sheet_rows(image=person(*shape)))
    assert opened(tmp_path / "retrieval.png").shape[1] == opened(tmp_path / "contact.png").shape[1] == WIDTH


def frames(pixels: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Results (from 0) with a frame of `colour`, found by its tall column left of the image."""
    first = WIDTH - MARGIN - FRAME - RESULT_WIDTH - 9 * RESULT_STEP
    columns = [first + k * RESULT_STEP - 1 for k in range(10)]
    return [k for k, x in enumerate(columns) if (pixels[:, x] == colour).all(axis=1).sum() > 150]


def test_every_result_has_the_frame_of_its_judgement(tmp_path: Path) -> None:
    right = [False, True, False, False, True, False, False, False, False, True]
    retrieval_sheet(tmp_path / "retrieval.png", "Queries", [retrieval_row(right)])
    pixels = opened(tmp_path / "retrieval.png")
    assert frames(pixels, RIGHT) == [1, 4, 9]
    assert frames(pixels, WRONG) == [0, 2, 3, 5, 6, 7, 8]


def test_the_marks_of_right_and_wrong_differ_in_shape_too(tmp_path: Path) -> None:
    retrieval_sheet(tmp_path / "retrieval.png", "Queries", [retrieval_row([True, False])])
    pixels = opened(tmp_path / "retrieval.png")
    first = WIDTH - MARGIN - FRAME - RESULT_WIDTH - 9 * RESULT_STEP
    rows = np.flatnonzero((pixels[:, first + 9] == RIGHT).all(axis=1))  # the disc's middle column
    check = pixels[rows[-1] - 17 : rows[-1] + 1, first : first + 18]
    cross = pixels[rows[-1] - 17 : rows[-1] + 1, first + RESULT_STEP : first + RESULT_STEP + 18]
    white = [(mark[3:-3, 3:-3].min(axis=2) > 200) for mark in (check, cross)]
    assert white[0].any()
    assert (white[1] & ~white[0]).sum() > 5


def test_results_beyond_the_tenth_are_left_out(tmp_path: Path) -> None:
    retrieval_sheet(tmp_path / "ten.png", "Queries", [retrieval_row([True] * 10)])
    retrieval_sheet(tmp_path / "more.png", "Queries", [retrieval_row([True] * 13)])
    assert (tmp_path / "ten.png").read_bytes() == (tmp_path / "more.png").read_bytes()


def test_one_epoch_is_enough_for_curves(tmp_path: Path) -> None:
    loss_curves(tmp_path / "loss.png", {"loss/total": ([1.0], [2.0]), "lr/default": ([1.0], [0.0])})
    validation_curves(tmp_path / "validation.png", [1], {"R1": [0.0], "R5": [0.0]}, 1)
    cmc_curve(tmp_path / "cmc.png", {"val/t2i": [100.0]})
    assert all(opened(path).size for path in tmp_path.iterdir())


@pytest.mark.filterwarnings("error")
def test_the_number_at_a_full_recall_is_below_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []

    @contextmanager
    def kept(path: Path, height: float) -> Iterator[Figure]:
        with chart(path, height) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr("components.figures.curves.chart", kept)
    cmc_curve(tmp_path / "cmc.png", {"val/t2i": [20.0] + [100.0] * 9})
    boxes = {text.get_text(): text.get_window_extent() for text in figures[0].findobj(Text)}
    (title,) = (box for text, box in boxes.items() if "recall" in text)
    assert boxes["100.0"].y1 < title.y0


def test_names_with_mathematics_are_shown_as_they_are(tmp_path: Path) -> None:
    validation_curves(tmp_path / "validation.png", [1, 2], {r"$\frac{R": [1.0, 2.0], "_x^": [1.0, 2.0]}, 2)
    assert opened(tmp_path / "validation.png").size


def test_charts_leave_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before: dict[str, Any] = dict(matplotlib.rcParams)
    cmc_curve(tmp_path / "cmc.png", CURVES)
    assert dict(matplotlib.rcParams) == before


def test_kept_colours_are_exact_among_more_than_a_palette_holds(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    noise[:10], noise[10:12] = WHITE, RIGHT
    save_png(tmp_path / "noise.png", Image.fromarray(noise), (WHITE, RIGHT))
    pixels = opened(tmp_path / "noise.png")
    assert (pixels[:10] == WHITE).all()
    assert (pixels[10:12] == RIGHT).all()
    assert np.abs(pixels.astype(int) - noise).mean() < 20


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_wrapped_lines_fit_and_only_a_cut_text_ends_in_an_ellipsis(text: str) -> None:
    face = load_face(14)
    lines = face.wrap(text, 200, 4)
    assert len(lines) <= 4
    assert all(face.font.getlength(line) <= 200 for line in lines)
    whole = "".join(lines).replace(" ", "") == face.printable(text).replace(" ", "")
    assert whole != bool(lines and lines[-1].endswith(ELLIPSIS))


def test_wrapping_breaks_between_words() -> None:
    face = load_face(14)
    width = int(face.font.getlength("a man in a")) + 1
    assert face.wrap("a man in a red coat", width, 3) == ["a man in a", "red coat"]


def test_what_the_font_lacks_becomes_a_square_and_controls_vanish() -> None:
    assert load_face(14).printable("a\x00b\u200b 穿 é\n$x$") == f"ab {MISSING} é $x$"


@pytest.mark.parametrize("heights", [[5.0], [1.0, 1.0, 1.0], [9.0, 1.0, 1.4, 2.5, 8.9], [0.0, 0.5, 1.0, 1.5, 10.0]])
def test_labels_are_moved_apart_in_their_order(heights: list[float]) -> None:
    placed = spread(heights, 1.0)
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    assert all(placed[high] - placed[low] >= 1.0 - 1e-9 for low, high in itertools.pairwise(order))
    assert sum(placed) == pytest.approx(sum(heights))


def test_labels_that_are_apart_stay() -> None:
    assert spread([3.0, 1.0, 7.0], 1.0) == [3.0, 1.0, 7.0]
