"""Free text in, ranked pictures out: a model and a gallery that belong together."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from irra.checkpoint import load_model, model_fingerprint
from irra.model import IRRA
from irra.search.encoder import Encoder
from irra.search.gallery import Gallery
from irra.search.pictures import to_pixels
from irra.utils.cores import available_cores
from irra.utils.device import choose_device
from irra.utils.errors import UserError

MAX_QUERY_CHARACTERS = 2000
MAX_RESULTS = 1000  # that a service gives for a query
BATCH = 64  # queries encoded at once
SHOWN_CHARACTERS = 40
BLANK = ("Cc", "Cs", "Zl", "Zp", "Zs")  # control characters, halves of surrogate pairs, separators


@dataclass(frozen=True)
class Hit:
    """A picture found for a query: rank from 1, cosine similarity, and the picture's row, path and person."""

    rank: int
    score: float
    row: int
    path: str
    pid: int | None


@dataclass(frozen=True)
class CaptionHit:
    """A caption found for a picture: rank from 1 and cosine similarity."""

    rank: int
    score: float
    caption: str


class SearchEngine:
    """Searches `gallery` with sentences or pictures; safe to use from several threads at once."""

    def __init__(self, model: IRRA, gallery: Gallery) -> None:
        self.model = model.eval()
        self.gallery = gallery
        self.encoder = Encoder(model)

    @classmethod
    def open(cls, model: Path, index: Path, device: str = "auto") -> "SearchEngine":
        """Load a model folder and an index folder; UserError when either is unusable or they do not belong together."""
        gallery, weights = Gallery.open(index), load_model(model)
        gallery.check_model(model_fingerprint(model))
        # torch counts the host's cores, also where a container may use but few of them
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
        return cls(weights.to(choose_device(device)), gallery)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """The best `top_k` pictures for each query, best first; all of them where the gallery has fewer.

        UserError for a query that is empty or too long, naming it, and for a top_k below 1.
        """
        check_top_k(top_k)
        texts = [clean_query(query, f"query {number}") for number, query in enumerate(queries, 1)]
        hits: list[list[Hit]] = []
        for start in range(0, len(texts), BATCH):
            scores, rows = self.gallery.search(self.encoder.texts(texts[start : start + BATCH]), top_k)
            hits += [self._hits(*ranking) for ranking in zip(scores.tolist(), rows.tolist(), strict=True)]
        return hits

    def unread(self, query: str) -> str:
        """The end of a long query that the model does not read, so that it changes nothing; mostly ""."""
        return self.encoder.unread(clean_query(query))

    def captions_of(self, image: Image.Image, top_k: int) -> list[CaptionHit]:
        """The gallery's captions that fit `image` best; none where it was made without captions."""
        check_top_k(top_k)
        pixels = to_pixels(image, self.model.spec.image_size)
        scores, rows = self.gallery.nearest_captions(self.encoder.images(pixels[None]), top_k)
        return [
            CaptionHit(rank, score, self.gallery.caption(row))
            for rank, (score, row) in enumerate(zip(scores[0].tolist(), rows[0].tolist(), strict=True), 1)
        ]

    def _hits(self, scores: list[float], rows: list[int]) -> list[Hit]:
        hits = []
        for rank, (score, row) in enumerate(zip(scores, rows, strict=True), 1):
            path, pid = self.gallery.path_and_pid(row)
            hits.append(Hit(rank, score, row, path, pid))
        return hits


def clean_query(text: str, name: str = "the query") -> str:
    """`text` with every run of white space and control characters made one space, and none at its ends.

    UserError when nothing is left, or more than MAX_QUERY_CHARACTERS; `name` says which query it was.
    """
    cleaned = " ".join("".join(" " if unicodedata.category(c) in BLANK else c for c in text).split())
    if not any(character.isprintable() and character != " " for character in cleaned):
        raise UserError(f"{name} is empty ({text[:SHOWN_CHARACTERS]!r}); describe a person in a few words")
    if len(cleaned) > MAX_QUERY_CHARACTERS:
        raise UserError(f"{name} has {len(cleaned)} characters, more than the {MAX_QUERY_CHARACTERS} allowed")
    return cleaned


def check_top_k(top_k: int) -> None:
    """UserError for a number of results below 1."""
    if top_k < 1:
        raise UserError(f"top_k: {top_k}; ask for at least 1 result")
