"""CLIP's byte-pair encoding (Sennrich et al., 2016): text to ids of pieces of words, and back.

The ids are those of open_clip's SimpleTokenizer. Only its vocabulary is read from there, since importing the package
takes longer than a search, and tokenizing needs no torch.
"""

import gzip
import html
import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice, pairwise

import ftfy
import regex

from irra.utils.packages import folder_of

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 48_894  # of the file's lines, after the first, that CLIP uses
SPECIAL = ("<start_of_text>", "<end_of_text>")  # one word each where a caption contains them
WORD = regex.compile(
    "|".join(SPECIAL) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)
END_OF_WORD = "</w>"
CACHED_WORDS = 1 << 16


class BytePairs:
    """The pieces of CLIP's vocabulary, and how words are made of them.

    Args:
        unused: How many of the last merges are not applied, so that their ids are free.
        longest: Number of pieces that are enough of a word. Merging takes a time quadratic in a word's length, so that
            of a longer word only as much is read as certainly has that many pieces.
    """

    def __init__(self, unused: int, longest: int) -> None:
        merges = _read_merges()
        self._letters = byte_letters()
        letters = list(self._letters.values())
        self.pieces = [*letters, *(letter + END_OF_WORD for letter in letters), *map("".join, merges), *SPECIAL]
        self._bytes = {letter: byte for byte, letter in self._letters.items()}
        self._ids = {piece: number for number, piece in enumerate(self.pieces)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges[: len(merges) - unused])}
        self._longest = longest * max(map(len, self.pieces))
        self._ids_of_word = lru_cache(CACHED_WORDS)(self._merge_word)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, which is repaired, unescaped and put into lower case first."""
        clean = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
        words = ("".join(self._letters[byte] for byte in word.encode()) for word in WORD.findall(clean))
        return [number for word in words for number in self._ids_of_word(word[: self._longest])]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, with a space after each word; bytes that are no character become U+FFFD."""
        letters = "".join(self.pieces[number] for number in ids)
        text = bytes(self._bytes[letter] for letter in letters)
        return text.decode(errors="replace").replace(END_OF_WORD, " ")

    def _merge_word(self, word: str) -> tuple[int, ...]:
        """Ids of a word, given as one letter per byte: the first merge in the vocabulary's order is applied first."""
        parts = [*word[:-1], word[-1] + END_OF_WORD]
        while len(parts) > 1:
            best = min(pairwise(parts), key=self._rank)
            if best not in self._ranks:
                break
            parts = _merged(parts, best)
        return tuple(self._ids[part] for part in parts)

    def _rank(self, pair: tuple[str, str]) -> float:
        return self._ranks.get(pair, math.inf)


def byte_letters() -> dict[int, str]:
    """A visible letter for each byte, in the vocabulary's order: printable Latin-1 first, which stays as it is."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join `pair` wherever it occurs, from left to right."""
    merged: list[str] = []
    joins = False  # whether the last part may still be joined to the next one
    for part in parts:
        if joins and (merged[-1], part) == pair:
            merged[-1] += part
            joins = False
        else:
            merged.append(part)
            joins = True
    return merged


def _read_merges() -> list[tuple[str, str]]:
    merges = []
    with gzip.open(folder_of("open_clip") / VOCABULARY, "rt", encoding="utf-8", newline="\n") as file:
        for line in islice(file, 1, MERGES + 1):
            first, second = line.split()
            merges.append((first, second))
    return merges
