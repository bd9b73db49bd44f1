import base64
from pathlib import Path

import numpy as np
from PIL import Image

from components.figures import RetrievalRow, SheetRow
from components.figures.page import metrics_table, picture, table, write_page
from components.figures.strips import people, queries

PIXELS = np.zeros((20, 10, 3), np.uint8)


def test_metrics_are_shown_with_their_intervals_and_the_metric_that_decides_comes_first() -> None:
    values = {"R1": 46.625, "R5": 70.0, "R10": 79.0, "mAP": 48.1, "mINP": 37.6}
    bounds = {name: [value - 5.0, value + 5.0] for name, value in values.items()}
    metrics = {split: dict.fromkeys(("i2t", "t2i"), values) for split in ("test", "val")}
    intervals = {split: dict.fromkeys(("i2t", "t2i"), bounds) for split in ("test", "val")}
    shown = metrics_table(metrics, intervals, "val/t2i/R1")
    rows = [row.split("</td>")[0].split(">")[-2].removesuffix("</span") for row in shown.split("<tr>")[2:]]
    assert rows == ["val, text → image", "test, text → image", "val, image → text", "test, image → text"]
    assert shown.count("<mark>") == 1
    assert '<td data-name="R1"><span><mark>46.62</mark> <small>41.6–51.6</small></span></td>' in shown


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "cmc.png")
    write_page(tmp_path / "page", "Evaluation", [picture(tmp_path / "cmc.png")])
    data = base64.b64encode((tmp_path / "cmc.png").read_bytes()).decode()
    assert f'<img alt="cmc" src="data:image/png;base64,{data}">' in (tmp_path / "page").read_text()


def test_markup_in_a_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    markup = '<script>"'
    found = RetrievalRow(markup, PIXELS, [(PIXELS, 0.5, True)], 1)
    blocks = [table(["<i>", markup], [["<i>", markup]]), people([SheetRow([PIXELS], markup, [markup])])]
    write_page(tmp_path / "page", "<b>", [*blocks, queries(markup, [found])], {markup: markup})
    page = (tmp_path / "page").read_text()
    assert "<script" not in page
    assert "<i>" not in page
    assert page.count("&lt;script&gt;&quot;") == 10


def test_a_sheet_of_queries_says_which_results_are_right() -> None:
    found = queries("Best", [RetrievalRow("in red", PIXELS, [(PIXELS, 0.75, False), (PIXELS, 0.5, True)], 2)])
    assert [part.split('"')[0] for part in found.split('<figure class="')[1:]] == ["", "wrong", "right"]
    assert "first right at rank 2" in found
    assert "✗\u00a00.750" in found
    assert "✓\u00a00.500" in found
