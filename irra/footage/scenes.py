"""Showing where a person was found: the frame, with a box around the person."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from irra.data.images import FORMATS, size_problem, to_rgb
from irra.utils.errors import UserError, without_password
from irra.utils.files import check_regular_file

LONGEST = 1280  # pixels of the longer side
PLACE = ("file", "frame", "x", "y", "width", "height")  # columns of the metadata without which there is no scene
BOX_COLOUR, EDGE_COLOUR = (255, 176, 32), (31, 36, 48)  # the dark edge makes a box visible on bright ground


def has_scene(footage: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> bool:
    """Whether a picture of an index with this `Info.footage` was found in a frame.

    In an index of pictures, columns of a user's own may have the same names.
    """
    return bool(footage) and metadata is not None and all(metadata.get(name) is not None for name in PLACE)


def read_scene(source: str, metadata: Mapping[str, Any], longest: int = LONGEST) -> Image.Image:
    """The frame in which a person was found, its longer side at most `longest` pixels, with a box around the person.

    `source` is the folder or file that was indexed, and `metadata` are those of the picture; see `has_scene`.

    Raises:
        UserError: The frame is not to be had here; the message says why.
    """
    path = _find(source, str(metadata["file"]))
    if metadata.get("seconds") is None:
        frame = _read_picture(path)
    else:
        from irra.footage.video import read_frame

        frame = Image.fromarray(read_frame(path, int(metadata["frame"]), float(metadata["seconds"])))
    scale = min(1.0, longest / max(frame.size))
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    scene = frame.resize(size, Image.Resampling.LANCZOS) if size != frame.size else frame
    left, top, width, height = (float(metadata[name]) * scale for name in ("x", "y", "width", "height"))
    _draw_box(scene, (left, top, left + width, top + height))
    return scene


def _find(source: str, file: str) -> Path:
    """The file of a frame: the source itself, or in it and not outside, whatever the metadata or a link says.

    Raises:
        UserError: It is not there.
    """
    why = f"the frame in {file} cannot be shown"
    if "://" in source:
        raise UserError(f"{why}: its source {without_password(source)} is not on this machine")
    base = Path(source)
    if not base.exists():
        raise UserError(f"{why}: its source {source} was not found")
    if not base.is_dir():
        return base
    try:
        path = (base / file).resolve()
        is_inside, is_there = path.is_relative_to(base.resolve()), path.is_file()
    except (OSError, RuntimeError, ValueError):  # a link to itself, or a name that no file may have
        raise UserError(f"{why}: its source has no such file") from None
    if not is_inside:
        raise UserError(f"{why}: it does not lie in its source {source}")
    if not is_there:
        check_regular_file(path)
        raise UserError(f"{why}: {path} was not found")
    return path


def _read_picture(path: Path) -> Image.Image:
    """A picture in full size, upright, in RGB."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if problem := size_problem(image):
                raise UserError(f"{path}: {problem}")
            return to_rgb(ImageOps.exif_transpose(image))
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a {', '.join(FORMATS)} image") from None
    except Exception as error:  # on malformed data, Pillow's plugins raise nearly any exception
        raise UserError(f"{path}: cannot be read: {error or type(error).__name__}") from None


def _draw_box(scene: Image.Image, box: tuple[float, float, float, float]) -> None:
    """Draw a rectangle around a box, without covering what is in it."""
    line = max(2, round(max(scene.size) / 320))
    draw = ImageDraw.Draw(scene)
    left, top, right, bottom = (round(edge) for edge in box)
    for outset, width, colour in ((line + 1, 1, EDGE_COLOUR), (line, line, BOX_COLOUR)):
        corners = (left - outset, top - outset, max(left, right) + outset - 1, max(top, bottom) + outset - 1)
        draw.rectangle(corners, outline=colour, width=width)
