"""Draw a video of people who walk along a street, to try `irra index --video` with before there is one of your own.

python -m app.street --out street --minutes 2 --people 80

Writes street.mp4, boxes.csv (where the people are in each frame, as a detector would say) and people.csv (who they are,
with a description of each).
"""

import argparse
import csv
import math
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

from components.stage import guarded
from irra.footage.street import SIZE, Pixels, Seen, Walker, draw_walkers, film
from irra.synthetic.captions import describe
from irra.utils.errors import UserError
from irra.utils.files import replace_folder
from irra.utils.progress import progress

VIDEO, BOXES, PEOPLE = "street.mp4", "boxes.csv", "people.csv"
RATE = 5  # frames per second


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m app.street", description="Draw a video of a street.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--minutes", type=float, default=1, help="length of the video (default: %(default)s)")
    parser.add_argument("--people", type=int, default=40, help="people who walk by (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="other people for another seed (default: %(default)s)")
    options = parser.parse_args()
    return guarded(lambda: print(write_street(options.out, options.minutes, options.people, options.seed)))


def write_street(out: Path, minutes: float, people: int, seed: int) -> str:
    """Write the video and the two tables to the folder `out`, which must be new, empty or an earlier such folder.

    Returns:
        What was written, in words.

    Raises:
        UserError: It holds something else, or there would be no frame or nobody.
    """
    if people < 1 or not math.isfinite(minutes) or round(minutes * 60 * RATE) < 1:
        raise UserError(f"--minutes {minutes:g} --people {people}: nobody to see; ask for some of both")
    if out.exists() and (out.is_file() or {path.name for path in out.iterdir()} - {VIDEO, BOXES, PEOPLE}):
        raise UserError(f"--out: {out} holds something else; name a new folder")
    walkers = draw_walkers(seed, people, minutes * 60)
    with replace_folder(out) as folder:
        count = round(minutes * 60 * RATE)
        seen = write_video(folder / VIDEO, progress(film(walkers, minutes * 60, RATE), "draw", count, "frames"))
        write_table(folder / BOXES, ("frame", "x", "y", "width", "height", "person"), rows_of_boxes(seen))
        write_table(folder / PEOPLE, ("person", "height", "upper", "description"), rows_of_people(walkers, seen, seed))
    return f"{out / VIDEO}: {count / RATE:g} s with {people} people, who are in {out / BOXES} and {out / PEOPLE}"


def write_video(path: Path, frames: Iterable[tuple[Pixels, list[Seen]]]) -> list[list[Seen]]:
    """Encode frames as H.264; returns who is in each.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("writing a video needs PyAV: pip install 'irra-pipeline[video]'") from None
    people = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options={"crf": "28"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for pixels, seen in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            people.append(seen)
        container.mux(stream.encode())
    return people


def rows_of_boxes(people: Sequence[Sequence[Seen]]) -> Iterable[Sequence[object]]:
    """A row for each person in each frame, frames counted from 0."""
    for number, seen in enumerate(people):
        for box in (one.box for one in seen):
            yield number, box.x, box.y, box.width, box.height, box.track


def rows_of_people(
    walkers: Sequence[Walker], people: Sequence[Sequence[Seen]], seed: int
) -> Iterable[Sequence[object]]:
    """A row for each person who can be seen, with a description of what their best picture shows."""
    best: dict[int, Seen] = {}
    for one in (one for seen in people for one in seen):
        known = best.get(one.walker.pid)
        if known is None or len(one.visible) > len(known.visible):
            best[one.walker.pid] = one
    for walker in walkers:
        if found := best.get(walker.pid):
            rng = random.Random(f"description/{seed}/{walker.pid}")
            said = describe(walker.person, found.visible, found.facing, rng)
            yield walker.pid, walker.height, walker.person.upper.colour, said


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


if __name__ == "__main__":
    raise SystemExit(main())
