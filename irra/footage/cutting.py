"""Which boxes are cut out of a frame, and how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cutting:
    """Which boxes are cut out, and how.

    Attributes:
        margin: Added on each side, as a share of the box's width and height.
        min_height: Height in pixels of the smallest box.
        min_score: Least confidence of a box, if it has one.
    """

    margin: float = 0.05
    min_height: int = 50
    min_score: float | None = None
