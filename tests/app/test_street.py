"""The drawn street: what its tables say is what its video shows."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from app.street import write_street
from irra.footage.street import draw_walkers, film
from irra.utils.errors import UserError


def test_boxes_hold_the_people_and_nobody_else_moves() -> None:
    walkers = draw_walkers(3, 6, 4)
    (empty, _), *_ = film([], 1, 1)
    pixels, seen = list(film(walkers, 4, 1))[3]
    painted = np.abs(pixels.astype(int) - empty.astype(int)).max(axis=2) > 60  # more than two draws of noise
    for box in (one.box for one in seen):
        x, y, width, height = (int(value) for value in (box.x, box.y, box.width, box.height))
        assert painted[y : y + height, x : x + width].mean() > 0.1
    assert 1 <= len(seen) <= 6


def test_the_video_and_its_tables_are_written_together(tmp_path: Path) -> None:
    write_street(tmp_path / "street", 0.02, 5, 2)
    with av.open(str(tmp_path / "street" / "street.mp4")) as video:
        frames = sum(1 for _ in video.decode(video=0))
    boxes = list(csv.DictReader((tmp_path / "street" / "boxes.csv").open()))
    people = list(csv.DictReader((tmp_path / "street" / "people.csv").open()))
    assert frames == 6
    assert {int(box["frame"]) for box in boxes} <= set(range(6))
    assert 1 <= len(people) <= 5
    assert all(person["description"].endswith(".") for person in people)


@pytest.mark.parametrize(("minutes", "people"), [(0.0, 5), (float("nan"), 5), (float("inf"), 5), (0.02, 0)])
def test_there_must_be_somebody_to_see(tmp_path: Path, minutes: float, people: int) -> None:
    with pytest.raises(UserError, match="nobody to see"):
        write_street(tmp_path / "street", minutes, people, 2)


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        write_street(tmp_path, 0.02, 5, 2)
    assert (tmp_path / "notes.txt").read_text() == "mine"
