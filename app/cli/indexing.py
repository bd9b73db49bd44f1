"""Making and updating an index: of pictures, or of the people in frames and video."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irra.footage.cutting import Cutting
from irra.utils.errors import UserError

if TYPE_CHECKING:
    from irra.footage.frames import Finder
    from irra.footage.sources import Footage
    from irra.search.encoder import Encoder
    from irra.search.metadata import Matched, Metadata

Document = dict[str, Any]

EVERY = "1s"  # a frame is taken of a video


@dataclass(frozen=True)
class Making:
    """What is common to all indexes.

    Attributes:
        out: Folder or address of the index.
        model: Folder or MLflow address.
        replace: Whether an index of something else may be discarded.
        metadata: A file of what is known of the pictures.
    """

    out: str
    model: str
    replace: bool
    metadata: Path | None


@dataclass(frozen=True)
class Finding:
    """How people are found in frames: by the boxes of a file, or with a detector.

    Attributes:
        boxes: The file.
        detect: Whether a detector looks at the frames.
        detector, weights: Its name, and the file of its weights, if they are not the default.
        cutting: Which people are taken; the default of `min_score` is a detector's own.
    """

    boxes: Path | None
    detect: bool
    detector: str | None
    weights: Path | None
    cutting: Cutting


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken: one every so often, and when it begins."""

    every: str | None
    start: str | None


def index_pictures(images: str, making: Making, captions: Path | None) -> Document:
    """Index a folder of pictures; returns what changed.

    Raises:
        UserError: As in `irra.search.update.index_folder`, or a file or the model cannot be used.
    """
    with local_folder("--images", images) as (folder, source):
        metadata = _read_metadata(making)

        from irra.search.captions import read_captions
        from irra.search.update import index_folder

        said = None if captions is None else read_captions(captions)
        encoder, known = _load_model(making.model)
        update = index_folder(
            folder, encoder, known, making.out, source=source, replace=making.replace, captions=said, metadata=metadata
        )
    return {
        "index": making.out,
        "pictures": update.info.size,
        "added": update.added,
        "kept": update.kept,
        "removed": update.removed,
        **({"forgotten": update.forgotten} if update.forgotten else {}),
        **({"described": update.info.described} if said is not None else {}),
        **_unmatched(update.matched),
        "skipped": update.skipped,
    }


def index_frames(frames: str, making: Making, finding: Finding) -> Document:
    """Index the people in a folder of frames; returns what changed.

    Raises:
        UserError: As in `irra.footage.build.index_footage`, or a file, the model or the detector cannot be used.
    """
    with local_folder("--frames", frames) as (folder, source):
        from irra.footage.sources import FrameFolder

        return _index_people(FrameFolder(folder), source, making, finding)


def index_video(video: str, making: Making, finding: Finding, sampling: Sampling) -> Document:
    """Index the people in a video, or in those of a folder; returns what changed.

    Raises:
        UserError: As in `irra.footage.build.index_footage`, or a file, the model or the detector cannot be used.
    """
    from irra.footage.sources import Videos
    from irra.footage.video import parse_every

    every, start = parse_every(EVERY if sampling.every is None else sampling.every), _parse_start(sampling.start)
    with local_folder("--video", video, or_file=True) as (path, source):
        return _index_people(Videos(path, every, start), source, making, finding)


def _index_people(footage: "Footage", source: str, making: Making, finding: Finding) -> Document:
    metadata = _read_metadata(making)
    finder, absent = _finder(footage, finding)

    from irra.footage.build import index_footage

    encoder, known = _load_model(making.model)
    update = index_footage(
        footage, finder, encoder, known, making.out, source, finding.cutting, metadata, making.replace
    )
    return {
        "index": making.out,
        "people": update.kept + update.added,
        "added": update.added,
        "kept": update.kept,
        "removed": update.removed,
        **({"forgotten": update.forgotten} if update.forgotten else {}),
        "tracks": update.tracks,
        "read": update.read,
        **{name: count for name, count in update.totals.items() if name != "people"},
        **_unmatched(update.matched),
        **({"absent": absent} if finding.boxes is not None else {}),
        "skipped": update.skipped,
    }


def _finder(footage: "Footage", finding: Finding) -> tuple["Finder", list[str]]:
    """What finds people, and the frames of a file of boxes that are not there."""
    if finding.boxes is not None:
        from irra.footage.boxes import read_boxes
        from irra.footage.finders import KnownBoxes

        boxes = KnownBoxes(read_boxes(finding.boxes), footage)
        return boxes, boxes.absent

    from irra.footage.detector import DEFAULT_DETECTOR, Detector
    from irra.footage.finders import Detected

    score = finding.cutting.min_score
    name = finding.detector or DEFAULT_DETECTOR
    detector = Detector(name, finding.weights) if score is None else Detector(name, finding.weights, score)
    return Detected(detector), []


def _load_model(model: str) -> tuple["Encoder", str]:
    """The model and the fingerprint of its weights."""
    from components.tracking.models import resolve_model
    from irra.checkpoint import load_model, model_fingerprint
    from irra.search.encoder import Encoder
    from irra.utils.device import choose_device

    path = resolve_model(model)
    return Encoder(load_model(path).to(choose_device("auto"))), model_fingerprint(path)


def _read_metadata(making: Making) -> "Metadata | None":
    if making.metadata is None:
        return None
    from irra.search.metadata import read_metadata

    return read_metadata(making.metadata)


def _parse_start(text: str | None) -> datetime | None:
    try:
        start = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--start: {text!r} is no time such as 2026-11-27T18:00:00") from None
    if start is not None and start.tzinfo is not None:
        raise UserError(f"--start: {text!r} has an offset; give the time on the clock of the camera, without one")
    return start


def _unmatched(matched: "Matched | None") -> Document:
    if matched is None:
        return {}
    return {"without_row": list(matched.without_row), "without_picture": list(matched.without_picture)}


@contextmanager
def local_folder(option: str, address: str, or_file: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield a local folder, or file, and its name as a source; from S3, a copy that is deleted afterwards.

    Raises:
        UserError: There is no such folder; the message names `option`.
    """
    from components.s3.client import is_remote

    path = Path(address)
    if is_remote(address):
        import tempfile

        from components.s3.transfer import download

        with tempfile.TemporaryDirectory(prefix="irra-") as folder:
            download(address, Path(folder))
            yield Path(folder), address
    elif path.is_dir() or (or_file and path.exists()):
        yield path, str(path.resolve())
    else:
        raise UserError(f"{option}: {address}: no such {'file or folder' if or_file else 'folder'}")
