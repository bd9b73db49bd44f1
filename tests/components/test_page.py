import base64
import json
from pathlib import Path

from PIL import Image

from components.figures.page import table, write_page, write_stage_report


def test_a_report_holds_metrics_by_split_and_direction(tmp_path: Path) -> None:
    values = {"R1": 46.625, "R5": 70.0, "R10": 79.0, "mAP": 48.1, "mINP": 37.6}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"t2i": values, "i2t": values}}))
    write_stage_report(tmp_path, tmp_path / "page", "Evaluation")
    page = (tmp_path / "page").read_text()
    assert "<tr><td>test, text → image</td><td>46.62</td><td>70.00</td>" in page


def test_a_report_holds_other_facts_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "stats.json").write_text(json.dumps({"splits": {"train": {"images": 24}}}))
    write_stage_report(tmp_path, tmp_path / "page", "Dataset")
    assert "<td>splits train images</td><td>24</td>" in (tmp_path / "page").read_text()


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "cmc.png")
    write_stage_report(tmp_path, tmp_path / "page", "Evaluation")
    data = base64.b64encode((tmp_path / "cmc.png").read_bytes()).decode()
    assert f'<img alt="cmc" src="data:image/png;base64,{data}">' in (tmp_path / "page").read_text()


def test_markup_in_a_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    write_page(tmp_path / "page", "<b>", [table(["<i>"], [["<script>"]])])
    page = (tmp_path / "page").read_text()
    assert "<script>" not in page
    assert "<td>&lt;script&gt;</td>" in page
