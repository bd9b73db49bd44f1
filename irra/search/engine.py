"""Searching with free text: a model and a gallery that belong together."""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from irra.checkpoint import load_model, model_fingerprint
from irra.model import IRRA
from irra.search.address import open_gallery
from irra.search.encoder import Encoder, Floats
from irra.search.gallery import Gallery, Rows, Scores, check_model
from irra.search.knn import normalised
from irra.search.pictures import to_pixels
from irra.search.tracks import Span, best_of_tracks, has_tracks, spans
from irra.search.where import parse_condition
from irra.utils.cores import available_cores
from irra.utils.device import choose_device
from irra.utils.errors import UserError

MAX_QUERY_CHARACTERS = 2000
MAX_RESULTS = 1000  # per query, in the services that use the engine
BATCH = 64  # queries compared with the gallery at once
SHOWN_CHARACTERS = 40
BLANK = ("Cc", "Cs", "Zl", "Zp", "Zs")  # control characters, halves of surrogate pairs, separators


@dataclass(frozen=True)
class Hit:
    """A picture found for a query: rank from 1, cosine similarity, and the picture's row, path and pid if known.

    In a gallery with metadata, also these; and how long its track lasts, if others of the track are not shown.
    """

    rank: int
    score: float
    row: int
    path: str
    pid: int | None
    metadata: dict[str, Any] | None = None
    span: Span | None = None

    def document(self) -> dict[str, Any]:
        """As JSON can hold it, without what there is not; times are as in ISO 8601."""
        values = {name: value for name, value in asdict(self).items() if value is not None or name == "pid"}
        return {name: plain(value) for name, value in values.items()}


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
    def open(cls, model: Path, index: str | Path, device: str = "auto") -> "SearchEngine":
        """Load a model folder and an index, which may be the address of a LanceDB gallery.

        Raises:
            UserError: One of them cannot be used, or they do not belong together.
        """
        gallery, weights = open_gallery(index), load_model(model)
        check_model(gallery, model_fingerprint(model))
        # torch counts all cores of the host, even if a container may use only a few
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
        return cls(weights.to(choose_device(device)), gallery)

    def search(
        self,
        queries: Sequence[str | Sequence[str]],
        top_k: int,
        caption_weight: float = 0.0,
        where: str | None = None,
        every_frame: bool = False,
    ) -> list[list[Hit]]:
        """The best `top_k` pictures for each query, best first; fewer if no more satisfy the condition.

        A query is a sentence, or several about one person, whose embedding is the mean of their unit embeddings.
        `caption_weight` is that of the pictures' own captions, as in `Gallery.search`. `where` is a condition on the
        metadata. Of each track, only the best picture is a hit, unless `every_frame`.

        Raises:
            UserError: A query is empty or too long, or `top_k` is below 1, and the message names the query; or no
                picture has captions; or the condition is not one.
        """
        check_top_k(top_k)
        condition = None if where is None else parse_condition(where, self.gallery.columns)
        sentences = [[query] if isinstance(query, str) else list(query) for query in queries]
        texts = [clean_query(text, f"query {number}") for number, said in enumerate(sentences, 1) for text in said]
        embeddings = mean_embeddings(self.encoder.texts(texts), [len(said) for said in sentences])
        by_track = has_tracks(self.gallery) and not every_frame

        def search(some: Floats, count: int) -> tuple[Scores, Rows]:
            return self.gallery.search(some, count, caption_weight, condition)

        if by_track:
            found = [best_of_tracks(self.gallery, partial(search, one[None]), top_k) for one in embeddings]
            return [self._hits(scores, rows, by_track) for scores, rows in found]
        hits: list[list[Hit]] = []
        for start in range(0, len(embeddings), BATCH):
            scores, rows = search(embeddings[start : start + BATCH], top_k)
            hits += [self._hits(*ranking) for ranking in zip(scores.tolist(), rows.tolist(), strict=True)]
        return hits

    def unread(self, query: str) -> str:
        """The end of a query that is too long for the model and is ignored; usually "".

        Raises:
            UserError: The query is empty or too long.
        """
        return self.encoder.unread(clean_query(query))

    def captions_of(self, image: Image.Image, top_k: int) -> list[CaptionHit]:
        """The gallery's captions that fit `image` best; none if it has no captions.

        Raises:
            UserError: The picture is damaged or too large, or `top_k` is below 1.
        """
        check_top_k(top_k)
        pixels = to_pixels(image, self.model.spec.image_size)
        scores, rows = self.gallery.nearest_captions(self.encoder.images(pixels[None]), top_k)
        return [
            CaptionHit(rank, score, self.gallery.caption(row))
            for rank, (score, row) in enumerate(zip(scores[0].tolist(), rows[0].tolist(), strict=True), 1)
        ]

    def _hits(self, scores: list[float], rows: list[int], by_track: bool = False) -> list[Hit]:
        known = self.gallery.metadata(rows)
        lasting = spans(self.gallery, known) if by_track else [None] * len(rows)
        return [
            Hit(rank, score, row, one.pop("path"), one.pop("pid"), one or None, span)
            for rank, (score, row, one, span) in enumerate(zip(scores, rows, known, lasting, strict=True), 1)
        ]


def plain(value: Any) -> Any:
    """A value of the metadata as JSON can hold it."""
    match value:
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case list():
            return [plain(one) for one in value]
        case float():
            return value if isfinite(value) else None  # JSON has neither NaN nor infinity
        case None | bool() | int() | str():
            return value
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value)


def mean_embeddings(embeddings: Floats, counts: Sequence[int]) -> Floats:
    """(Q, D) embeddings of queries of so many sentences each, from those of all sentences in order.

    Those of one sentence stay as they are; of several, it is the mean of their unit embeddings.
    """
    if all(count == 1 for count in counts):
        return embeddings
    ends = np.cumsum(counts)
    groups = [embeddings[end - count : end] for count, end in zip(counts, ends, strict=True)]
    return np.stack([group[0] if len(group) == 1 else normalised(group).mean(axis=0) for group in groups])


def clean_query(text: str, name: str = "the query") -> str:
    """`text` stripped, with every run of white space and control characters replaced by one space.

    Raises:
        UserError: Nothing is left, or more than MAX_QUERY_CHARACTERS; the message calls the query `name`.
    """
    cleaned = " ".join("".join(" " if unicodedata.category(c) in BLANK else c for c in text).split())
    if not any(character.isprintable() and character != " " for character in cleaned):
        raise UserError(f"{name} is empty ({text[:SHOWN_CHARACTERS]!r}); describe a person in a few words")
    if len(cleaned) > MAX_QUERY_CHARACTERS:
        raise UserError(f"{name} has {len(cleaned)} characters, more than the {MAX_QUERY_CHARACTERS} allowed")
    return cleaned


def check_top_k(top_k: int) -> None:
    """Check the number of results to return.

    Raises:
        UserError: It is below 1.
    """
    if top_k < 1:
        raise UserError(f"top_k: {top_k}; ask for at least 1 result")
