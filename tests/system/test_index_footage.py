"""Indexing frames and video that is killed goes on where it was, and ends as if nothing had happened."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from irra.footage.boxes import read_boxes
from irra.footage.build import FootageUpdate, index_footage
from irra.footage.cutting import Cutting
from irra.footage.finders import KnownBoxes
from irra.footage.sources import Footage, FrameFolder, Videos
from irra.footage.video import parse_every
from irra.search.encoder import Encoder
from irra.search.folder import FolderGallery
from irra.utils.errors import UserError
from tests.footage import mot_lines, write_frames, write_video
from tests.imports import ROOT
from tests.irra.test_index_folder import CountingEncoder
from tests.models import small_model

pytestmark = pytest.mark.system

FRAMES, PEOPLE = 20, 2
TIMEOUT = 60.0  # seconds


class SlowEncoder(Encoder):
    """Takes its time, so that it can be killed meanwhile."""

    def images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.2)
        return super().images(pixels)


def update(path: Path, index: Path, encoder: Encoder) -> FootageUpdate:
    """Index `path`, saving whenever possible."""
    footage: Footage = Videos(path, parse_every("1")) if path.is_file() else FrameFolder(path)
    finder = KnownBoxes(read_boxes(path.parent / "boxes.txt"), footage)
    return index_footage(
        footage, finder, encoder, "a" * 64, index, str(path), Cutting(0.0, 1), batch_size=4, save_seconds=0.0
    )


def people(index: Path) -> list[tuple[dict[str, object], list[float]]]:
    gallery = FolderGallery.open(index)
    return [(gallery.metadata([row])[0], gallery.embeddings[row].tolist()) for row in range(gallery.size)]


def size(index: Path) -> int:
    try:
        return FolderGallery.open(index).size
    except UserError:
        return 0


@pytest.mark.parametrize("kind", ["frames", "video"])
def test_a_kill_costs_no_more_than_what_was_not_saved(tmp_path: Path, kind: str) -> None:
    (tmp_path / "boxes.txt").write_text(mot_lines(range(1, FRAMES + 1), PEOPLE))
    is_video = kind == "video"
    path = write_video(tmp_path / "it.mp4", FRAMES) if is_video else write_frames(tmp_path / "it", range(1, FRAMES + 1))
    encoder, index = CountingEncoder(small_model()), tmp_path / "index"
    update(path, tmp_path / "once", encoder)
    for aim in (8, 20):
        work = f"from tests.system.test_index_footage import *; update(Path({str(path)!r}), Path({str(index)!r}), "
        command = [sys.executable, "-c", work + "SlowEncoder(small_model()))"]
        killed = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        until = time.monotonic() + TIMEOUT
        while size(index) < aim:
            assert killed.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    saved, encoder.encoded = size(index), 0
    assert aim <= saved < FRAMES * PEOPLE
    done = update(path, index, encoder)
    assert (done.kept, done.added, encoder.encoded) == (saved, FRAMES * PEOPLE - saved, FRAMES * PEOPLE - saved)
    for (one, vector), (other, expected) in zip(people(index), people(tmp_path / "once"), strict=True):
        assert one == other
        assert vector == pytest.approx(expected, abs=2e-3)
    assert update(path, index, encoder).read == 0
