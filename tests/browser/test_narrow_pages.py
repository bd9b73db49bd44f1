"""The reports of tasks in the frames of Kubeflow's page: a run's is 529 pixels wide, a comparison's 300."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from components.compare import Result, write_comparison
from components.figures import sheets
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
CONTENT = "document.documentElement.scrollWidth"
CHARTS = "[...document.querySelectorAll('.charts img')].map((image) => image.clientWidth)"
# The text of each number, mark or fingerprint, and on how many lines it stands.
LINES = """() => {
  const lines = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, range = document.createRange();
    if (!node.parentElement.closest("td:not(:first-child), figcaption, .facts b")) continue;
    range.selectNodeContents(node);
    const count = new Set([...range.getClientRects()].map((box) => box.top)).size;
    lines[node.data] = Math.max(count, lines[node.data] ?? 0);
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "save_png", lambda *_: None)  # takes its time, and the page has HTML instead
        write_chapter(pages["prepare"], draw_dataset(inputs.prepared, folder))
        evaluation = draw_evaluation(inputs.evaluate, inputs.rankings, inputs.prepared, config, folder)
    write_chapter(pages["evaluate"], evaluation, RUN)
    write_chapter(pages["train"], draw_training(inputs.train, inputs.prepared, model, folder), RUN)
    values = dict.fromkeys(METRIC_NAMES, 100.0)
    results = [Result("CUHK-PEDES", "cmpm+sdm+itc+mlm+id", seed, "test", values) for seed in (0, 1)]
    write_comparison(results, folder / "comparison")
    pages["ablation"] = folder / "comparison" / "ablation.html"
    return pages


@dataclass(frozen=True)
class Seen:
    """A report in a frame: widths of the frame, its content and its charts, and what LINES and FONT_SIZES say."""

    frame: int
    content: int
    charts: list[int]
    lines: dict[str, int]
    letters: list[float]


@pytest.fixture(scope="module", params=[(name, width) for name in NAMES for width in FRAMES], ids=str)
def seen(request: pytest.FixtureRequest, browser: Browser, reports: dict[str, Path]) -> Seen:
    name, width = request.param
    with browser.new_context(viewport={"width": width - SCROLL_BAR, "height": 600}) as context:
        page = context.new_page()
        page.goto(reports[name].as_uri())
        return Seen(*map(page.evaluate, ("innerWidth", CONTENT, CHARTS, LINES, FONT_SIZES)))


def test_a_report_fits_its_frame(seen: Seen) -> None:
    assert seen.content <= seen.frame


def test_no_number_of_a_report_is_broken(seen: Seen) -> None:
    assert {text for text, lines in seen.lines.items() if lines > 1} == set()


def test_letters_in_and_around_the_charts_of_a_report_are_large_enough(seen: Seen) -> None:
    drawn = [FONT_POINTS / 72 / WIDTH * width for width in seen.charts]
    assert min(drawn + seen.letters) >= SMALLEST
