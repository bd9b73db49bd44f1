"""The reports of tasks in the frames of Kubeflow's page: a run's is 529 pixels wide, a comparison's 300."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from components.compare import Result, write_comparison
from components.figures.plots import FONT_POINTS, WIDTH
from components.report import draw_dataset, draw_evaluation, draw_training, write_chapter
from components.results import read_results
from irra.config import ReportConfig
from irra.data.store import PreparedStore
from irra.metrics import METRIC_NAMES
from tests.components.test_report import write_results

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

SCROLL_BAR = 15  # which the frame has beside a page that is higher
FRAMES = (529, 300)
SMALLEST = 8.0  # pixels
NAMES = ("prepare", "train", "evaluate", "ablation")
RUN = "0123456789abcdef" * 2
# The text of each number, mark or fingerprint, and on how many lines it stands.
LINES = """() => {
  const lines = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, range = document.createRange();
    if (!node.parentElement.closest("td:not(:first-child), figcaption, .facts b")) continue;
    range.selectNodeContents(node);
    lines[node.data] = new Set([...range.getClientRects()].map((box) => box.top)).size;
  }
  return lines;
}"""
FONT_SIZES = """() => [...document.querySelectorAll("body, body *")]
  .filter((one) => [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()))
  .map((one) => parseFloat(getComputedStyle(one).fontSize))"""


@pytest.fixture(scope="module")
def reports(store: PreparedStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of all tasks."""
    folder = tmp_path_factory.mktemp("reports")
    inputs, pages = write_results(folder, store), {name: folder / f"{name}.html" for name in NAMES}
    model = read_results(inputs.evaluate)["model"]
    config = ReportConfig(sheet_queries=2, seed=0)
    write_chapter(pages["prepare"], draw_dataset(inputs.prepared, folder))
    write_chapter(pages["train"], draw_training(inputs.train, model, folder), RUN)
    evaluation = draw_evaluation(inputs.evaluate, inputs.rankings, inputs.prepared, config, folder)
    write_chapter(pages["evaluate"], evaluation, RUN)
    results = [
        Result("CUHK-PEDES", "cmpm+sdm+itc+mlm+id", seed, "test", dict.fromkeys(METRIC_NAMES, 100.0 * seed))
        for seed in (0, 1)
    ]
    write_comparison(results, folder / "comparison")
    pages["ablation"] = folder / "comparison" / "ablation.html"
    return pages


@pytest.fixture(params=FRAMES)
def frame(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page as wide as one of Kubeflow's frames, without what stands at its side."""
    width: int = request.param - SCROLL_BAR
    with browser.new_context(viewport={"width": width, "height": 600}) as context:
        yield context.new_page()


@pytest.mark.parametrize("name", NAMES)
def test_a_report_fits_its_frame(frame: Page, reports: dict[str, Path], name: str) -> None:
    frame.goto(reports[name].as_uri())
    width = frame.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert width[1] <= width[0]


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_a_report_is_broken(frame: Page, reports: dict[str, Path], name: str) -> None:
    frame.goto(reports[name].as_uri())
    assert {text for text, lines in frame.evaluate(LINES).items() if lines > 1} == set()


@pytest.mark.parametrize("name", NAMES)
def test_letters_in_and_around_the_pictures_of_a_report_are_large_enough(
    frame: Page, reports: dict[str, Path], name: str
) -> None:
    frame.goto(reports[name].as_uri())
    widths = frame.evaluate("[...document.querySelectorAll('.charts img')].map((image) => image.clientWidth)")
    letters = [FONT_POINTS / 72 / WIDTH * width for width in widths]
    assert min(letters + frame.evaluate(FONT_SIZES)) >= SMALLEST
