"""irra index: make the pictures of any folder searchable, or the people in frames and video."""

import math
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from app.cli.console import MODEL_HELP, Document, check_output_folder, print_fields, printable
from app.cli.indexing import EVERY, Finding, Making, Sampling, index_frames, index_pictures, index_video
from components.layout import MODEL
from irra.footage.cutting import Cutting
from irra.utils.errors import UserError

MAX_SHOWN = 10  # files that were skipped; --json lists them all
NAMED = {  # lists in an answer of which the first few are shown, each on its own line
    "without_row": "without a row in --metadata",
    "without_picture": "row in --metadata without a picture",
    "absent": "boxes of a frame that is not there",
}
MAX_MARGIN = 1.0
PROBLEMS = ("unsure", "outside", "too_small", "double", "clipped", "damaged")  # shown if there are any


def index(
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Index to create or update, or lance:ADDRESS.")],
    images: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of pictures, searched recursively, or s3://...")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Folder of frames, those of each subfolder from one camera, or s3://..."),
    ] = None,
    video: Annotated[
        str | None, typer.Option(metavar="FILE", help="Video, a folder of videos, or s3://... of a folder.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="People in the frames: COCO JSON, MOT text, or CSV (frame,x,y,width,height)."
        ),
    ] = None,
    detect: Annotated[bool, typer.Option("--detect", help="Find the people in the frames with a detector.")] = False,
    every: Annotated[
        str | None,
        typer.Option(metavar="STEP", help=f"A frame of a video every 0.5s, or 25 frames.  [default: {EVERY}]"),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="When a video begins, such as 2026-11-27T18:00:00.")
    ] = None,
    detector: Annotated[str | None, typer.Option(metavar="NAME", help="Detector of torchvision, for --detect.")] = None,
    detector_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its weights, if they cannot be downloaded.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Least confidence of a box, if it has one.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help=f"Margin on each side of a box, of its size.  [default: {Cutting.margin}]"),
    ] = None,
    min_height: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help=f"Height of the smallest box.  [default: {Cutting.min_height}]"),
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What is known of the pictures: a CSV or Parquet file with the column key, their paths, and others.",
        ),
    ] = None,
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP)] = str(MODEL),
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an index made with another model or folder, or with captions.")
    ] = False,
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Captions of the pictures: a CSV file with the columns path (in the folder of pictures) and caption, "
            "or the folder of a dataset, whose imgs/ are the pictures.",
        ),
    ] = None,
) -> Document:
    """Make a folder of pictures searchable, or the people in a folder of frames or in video.

    If the index exists, only new and changed pictures are encoded, and deleted pictures are removed from it. Captions
    are there for `irra search --caption-weight`.

    Example: irra index --images photos --out photos-index
    """
    making = Making(out, model, replace, metadata)
    sources = {"--images": images, "--frames": frames, "--video": video}
    finding = {
        "--boxes": boxes,
        "--detect": detect or None,
        "--detector": detector,
        "--detector-weights": detector_weights,
        "--min-score": min_score,
        "--margin": margin,
        "--min-height": min_height,
    }
    source, address = _only_one(sources)
    if source == "--images":
        _refuse(finding | {"--every": every, "--start": start}, "for --frames and --video")
    else:
        _refuse({"--captions": captions}, "for --images")
        _only_one({"--boxes": boxes, "--detect": detect or None})
    if source != "--video":
        _refuse({"--every": every, "--start": start}, "for --video")
    if not detect:
        _refuse({"--detector": detector, "--detector-weights": detector_weights}, "for --detect")
    _check_target(source, address, out)
    if images is not None:
        return index_pictures(images, making, captions)
    people = Finding(boxes, detect, detector, detector_weights, _cutting(margin, min_height, min_score))
    if frames is not None:
        return index_frames(frames, making, people)
    return index_video(address, making, people, Sampling(every, start))


def _only_one(options: dict[str, Any]) -> tuple[str, Any]:
    """The option that was given.

    Raises:
        UserError: None was, or several.
    """
    given = [(name, value) for name, value in options.items() if value is not None]
    if len(given) != 1:
        names = list(options)
        raise UserError(f"give exactly one of {', '.join(names[:-1])} and {names[-1]}")
    return given[0]


def _refuse(options: dict[str, Any], purpose: str) -> None:
    """Check that none of these options was given, which are for something else.

    Raises:
        UserError: One was.
    """
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name}: is {purpose}")


def _cutting(margin: float | None, min_height: int | None, min_score: float | None) -> Cutting:
    """Which people are cut out, and how, with defaults.

    Raises:
        UserError: A value makes no sense.
    """
    given = {"margin": margin, "min_height": min_height, "min_score": min_score}
    cutting = Cutting(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if not 0.0 <= cutting.margin <= MAX_MARGIN:
        raise UserError(f"--margin: {margin} is not in 0..{MAX_MARGIN:g}; it is a share of a box's size")
    if cutting.min_height < 1:
        raise UserError(f"--min-height: {min_height}; a box has at least 1 pixel")
    if min_score is not None and not math.isfinite(min_score):
        raise UserError(f"--min-score: {min_score} is not a number")
    return cutting


def _check_target(option: str, address: str, out: str) -> None:
    """Check that an index may be written where it is to be.

    Raises:
        UserError: It would replace other files, or overlap with the pictures.
    """
    from components.s3.client import is_remote
    from irra.search.address import LANCE, is_lance
    from irra.search.format import FILES

    if is_lance(out):
        if not is_remote(place := out.removeprefix(LANCE)):
            check_apart(option, address, Path(place))
        return
    check_apart(option, address, Path(out))
    check_output_folder("--out", Path(out), FILES)


def check_apart(option: str, address: str, out: Path) -> None:
    """Check that the index would neither replace the pictures nor lie among them.

    Raises:
        UserError: It would.
    """
    from components.s3.client import is_remote

    source, target = Path(address).resolve(), out.resolve()
    if is_remote(address):
        return
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"--out: {out} and {option} {address} overlap; name another folder")


def print_update(answer: Document, stream: TextIO) -> None:
    """Print the number of pictures and what has changed, then the first skipped files with the reason."""
    skipped = answer["skipped"]
    counts = {name: len(value) if isinstance(value, list) else value for name, value in answer.items()}
    print_fields({name: value for name, value in counts.items() if value or name not in PROBLEMS}, stream)
    for name, meaning in NAMED.items():
        _print_first([f"{meaning}: {printable(item)}" for item in answer.get(name, [])], name, stream)
    _print_first([f"{printable(item['path'])}: {printable(item['reason'])}" for item in skipped], "skipped", stream)


def _print_first(lines: list[str], name: str, stream: TextIO) -> None:
    title = name.replace("_", " ")
    for line in lines[:MAX_SHOWN]:
        print(f"{title}  {line}", file=stream)
    if len(lines) > MAX_SHOWN:
        print(f"{title}  {len(lines) - MAX_SHOWN:,} more; --json lists all of them", file=stream)
