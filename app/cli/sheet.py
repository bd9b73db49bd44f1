"""Draw the results of free queries: the pictures themselves, or why each of them was found."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components.figures import RetrievalRow, retrieval_sheet
from components.figures.canvas import Pixels
from components.figures.explanation import ExplainedQuery, ExplanationRow, explanation_sheet
from components.figures.scenes import SCENE_WIDTH, SceneQuery, Sighting, scene_sheet
from components.figures.sheets import TOP_RESULTS
from irra.footage.scenes import has_scene, read_scene
from irra.search.engine import Hit, SearchEngine
from irra.search.explain import explain
from irra.search.tracks import Span
from irra.utils.errors import UserError
from irra.utils.progress import progress


def draw_results(path: Path, engine: SearchEngine, texts: Sequence[str], rankings: Sequence[Sequence[Hit]]) -> None:
    """Draw each query with its ten best pictures; with their frames, if they were found in frames or video."""
    title = f"Best of {engine.gallery.size:,} pictures"
    footage = engine.gallery.info.footage
    if any(has_scene(footage, hit.metadata) for hits in rankings for hit in hits[:TOP_RESULTS]):
        scene_sheet(path, title, scene_queries(engine, texts, rankings))
        return
    rows = [
        RetrievalRow(text, None, [(pixels_of(engine, hit), hit.score, None) for hit in hits[:TOP_RESULTS]], None)
        for text, hits in zip(texts, rankings, strict=True)
    ]
    retrieval_sheet(path, title, rows)


def scene_queries(engine: SearchEngine, texts: Sequence[str], rankings: Sequence[Sequence[Hit]]) -> list[SceneQuery]:
    """Each query with its ten best pictures and their frames; warns once if there are frames that cannot be shown."""
    found = [hit for hits in rankings for hit in hits[:TOP_RESULTS]]
    problems: list[str] = []
    sightings = iter([sighting(engine, hit, problems) for hit in progress(found, "frames", len(found), "pictures")])
    queries = [
        SceneQuery(text, list(islice(sightings, len(hits[:TOP_RESULTS]))))
        for text, hits in zip(texts, rankings, strict=True)
    ]
    if problems:
        print(f"warning: {len(problems)} of {len(found)} frames are not drawn; {problems[0]}", file=sys.stderr)
    return queries


def sighting(engine: SearchEngine, hit: Hit, problems: list[str]) -> Sighting:
    """A hit with its frame; if it has one that cannot be shown, `problems` gets the reason."""
    title, pixels, known = f"rank {hit.rank}: {hit.score:.3f}", pixels_of(engine, hit), hit.metadata
    if known is None or not has_scene(engine.gallery.info.footage, known):
        return Sighting(title, pixels, None, hit.path, [])
    scene = None
    try:
        scene = np.asarray(read_scene(engine.gallery.entry(hit.row).source, known, SCENE_WIDTH))
    except UserError as error:
        problems.append(str(error))
    times = [when(known), *([] if hit.span is None else [lasting(hit.span)])]
    return Sighting(title, pixels, scene, str(known["file"]), times)


def when(known: Mapping[str, Any]) -> str:
    """When a picture was taken, as far as its metadata say."""
    if known.get("time") is not None:
        return said("time", known["time"])
    return said("seconds", known["seconds"]) if known.get("seconds") is not None else said("frame", known["frame"])


def lasting(span: Span) -> str:
    """How long a track lasts; without the date, if it is one day."""
    first, last = (said(span.column, moment) for moment in (span.first, span.last))
    if span.column == "time" and span.first.date() == span.last.date():
        first, last = (f"{moment:%H:%M:%S}" for moment in (span.first, span.last))
    return f"seen {span.pictures} times, {first} to {last}"


def said(column: str, moment: Any) -> str:
    """A moment in a column of the metadata, as a person would write it."""
    if isinstance(moment, datetime):
        return f"{moment:%Y-%m-%d %H:%M:%S}"
    if column == "seconds":
        minutes, seconds = divmod(round(float(moment), 1), 60)
        return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{seconds:04.1f}"
    return f"{column} {moment}"


def draw_explanations(
    path: Path, engine: SearchEngine, texts: Sequence[str], rankings: Sequence[Sequence[Hit]]
) -> None:
    """Draw each query's ten best pictures with the words and the parts that account for their scores."""
    found = [(text, hit) for text, hits in zip(texts, rankings, strict=True) for hit in hits[:TOP_RESULTS]]
    rows = iter([explanation_row(engine, *pair) for pair in progress(found, "explain", len(found), "pictures")])
    queries = [
        ExplainedQuery(text, list(islice(rows, len(hits[:TOP_RESULTS]))))
        for text, hits in zip(texts, rankings, strict=True)
    ]
    explanation_sheet(path, queries)


def explanation_row(engine: SearchEngine, text: str, hit: Hit) -> ExplanationRow:
    """Explain why one picture was found."""
    pixels = pixels_of(engine, hit)
    explanation = explain(engine.model, pixels, text)
    words = [*explanation.words, *([(f"(not read: {explanation.unread})", 0.0)] if explanation.unread else [])]
    person = "" if hit.pid is None else f", person {hit.pid}"
    return ExplanationRow(f"rank {hit.rank}: {hit.score:.3f}{person}", pixels, explanation.heat, words)


def pixels_of(engine: SearchEngine, hit: Hit) -> Pixels:
    """A hit's picture, uint8 (H, W, 3) at the model's image size."""
    return engine.gallery.pixels(hit.row, engine.model.spec.image_size)
