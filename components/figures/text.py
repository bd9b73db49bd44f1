"""Text in pictures: wraps any caption into lines that the font can draw."""

import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

MISSING = "\u25a1"  # an empty square, which the font has
ELLIPSIS = "\u2026"
INVISIBLE = ("Cc", "Cf")  # control and format characters


@dataclass(frozen=True)
class Face:
    """A font at one size, and the characters it can draw."""

    font: ImageFont.FreeTypeFont
    characters: frozenset[int]
    line_height: int

    def printable(self, text: str) -> str:
        """Put `text` on one line: white space collapsed, no control characters, squares for missing characters."""
        kept = "".join(map(self._drawn, unicodedata.normalize("NFC", text)))
        return " ".join(kept.split())

    def _drawn(self, character: str) -> str:
        if character.isspace():
            return " "
        if unicodedata.category(character) in INVISIBLE:
            return ""
        return character if ord(character) in self.characters else MISSING

    def fitting(self, text: str, width: int) -> int:
        """How many characters from the start of `text` fit into `width` pixels, at least one."""
        ends = range(min(len(text), width))  # at most one character per pixel, which bounds the work for long texts
        return max(1, bisect_left(ends, True, key=lambda end: self.font.getlength(text[: end + 1]) > width))

    def wrap(self, text: str, width: int, max_lines: int) -> list[str]:
        """Wrap the printable `text` into at most `max_lines` lines of `width` pixels; an ellipsis marks a cut."""
        assert max_lines >= 1, "no line to write on"
        rest = self.printable(text)
        lines: list[str] = []
        while rest and len(lines) < max_lines:
            end = self.fitting(rest, width)
            if end < len(rest) and " " in rest[: end + 1]:
                end = rest.rindex(" ", 0, end + 1)
            lines.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        if rest:
            lines[-1] = self._with_ellipsis(lines[-1], width)
        return lines

    def ending(self, text: str, width: int) -> str:
        """The printable `text` on one line of `width` pixels, cut at its beginning: of a path, the name stays."""
        line = self.printable(text)
        if self.font.getlength(line) <= width:
            return line
        room = width - round(self.font.getlength(ELLIPSIS)) - 1
        return ELLIPSIS + line[-self.fitting(line[::-1], room) :]

    def _with_ellipsis(self, line: str, width: int) -> str:
        kept = line[: self.fitting(line, width - round(self.font.getlength(ELLIPSIS)) - 1)]
        if len(kept) < len(line) and " " in kept:
            kept = kept[: kept.rindex(" ")]
        return kept.rstrip(" ,.;") + ELLIPSIS


def load_face(size: int, bold: bool = False) -> Face:
    """Load DejaVu Sans at `size` pixels from matplotlib, so that no font needs to be installed."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    font = ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
    return Face(font, frozenset(FT2Font(str(file)).get_charmap()), round(1.35 * size))
