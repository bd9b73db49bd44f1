"""Who is the same person in consecutive frames, by the overlap of boxes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The least overlap of two boxes of one person, as in SORT (Bewley et al., 2016, https://github.com/abewley/sort). Who
# walks farther between two frames gets another track, which costs a second result and no wrong one.
MIN_OVERLAP = 0.3
REACH = 2  # frames back in which a person is looked for: one miss of the detector does not end a track

Place = tuple[int, int, int, int]  # x, y, width, height


class Linker:
    """Numbers the people of one camera, frame by frame: a person keeps the number of the box that it overlaps most.

    Boxes are matched greedily, the largest overlap first; of equal ones the latest, then the one of the lowest number.

    Args:
        number: Of the next new track.
    """

    def __init__(self, number: int = 1) -> None:
        self.position = -1
        self._number = number
        self._last: dict[int, tuple[int, Place]] = {}  # by track, the position of its last frame and its place there

    def follow(self, position: int, places: Sequence[Place], numbers: Sequence[int]) -> None:
        """Take note of people whose tracks are known, in the frame at a position after the last."""
        assert position > self.position
        self.position = position
        self._last |= {number: (position, place) for number, place in zip(numbers, places, strict=True)}
        self._last = {number: last for number, last in self._last.items() if last[0] > position - REACH}

    def link(self, position: int, places: Sequence[Place]) -> list[int]:
        """The tracks' numbers of the people in the frame at a position after the last."""
        tracks = [number for number, (last, _) in self._last.items() if position - last <= REACH]
        shared = overlaps([self._last[number][1] for number in tracks], places)
        candidates = [
            (-shared[i, j], -self._last[tracks[i]][0], tracks[i], j) for i, j in np.argwhere(shared >= MIN_OVERLAP)
        ]
        found: dict[int, int] = {}
        taken: set[int] = set()
        for _, _, number, j in sorted(candidates):
            if j not in found and number not in taken:
                found[int(j)] = number
                taken.add(number)
        numbers = [found[j] if j in found else self._new() for j in range(len(places))]
        self.follow(position, places, numbers)
        return numbers

    def _new(self) -> int:
        self._number += 1
        return self._number - 1


def overlaps(first: Sequence[Place], second: Sequence[Place]) -> NDArray[np.float64]:
    """Intersection over union (N, M) of boxes."""
    a, b = (np.array(places, np.float64).reshape(-1, 4) for places in (first, second))
    upper = np.maximum(a[:, None, :2], b[None, :, :2])
    lower = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    shared = (lower - upper).clip(0).prod(axis=2)
    return np.asarray(shared / (a[:, 2:].prod(axis=1)[:, None] + b[:, 2:].prod(axis=1) - shared))
