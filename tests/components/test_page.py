import base64
from pathlib import Path

from PIL import Image

from components.figures.page import metrics_table, picture, table, values_table, write_page


def test_metrics_are_shown_with_their_intervals_by_split_and_direction() -> None:
    values = {"R1": 46.625, "R5": 70.0, "R10": 79.0, "mAP": 48.1, "mINP": 37.6}
    bounds = {name: [value - 5.0, value + 5.0] for name, value in values.items()}
    shown = metrics_table({"test": {"t2i": values, "i2t": values}}, {"test": {"t2i": bounds, "i2t": bounds}})
    assert "<tr><td>test, text → image</td><td>46.62 (41.6–51.6)</td><td>70.00 (65.0–75.0)</td>" in shown
    assert "<td>test, image → text</td>" in shown


def test_other_values_have_a_line_each() -> None:
    assert "<td>train images</td><td>24</td>" in values_table({"train": {"images": 24}})


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "cmc.png")
    write_page(tmp_path / "page", "Evaluation", [picture(tmp_path / "cmc.png")])
    data = base64.b64encode((tmp_path / "cmc.png").read_bytes()).decode()
    assert f'<img alt="cmc" src="data:image/png;base64,{data}">' in (tmp_path / "page").read_text()


def test_markup_in_a_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    write_page(tmp_path / "page", "<b>", [table(["<i>"], [["<script>"]])])
    page = (tmp_path / "page").read_text()
    assert "<script>" not in page
    assert "<td>&lt;script&gt;</td>" in page
