"""What free queries found, drawn: the pictures themselves, or why each of them was found."""

from collections.abc import Sequence
from pathlib import Path

from components.pictures import RetrievalRow, retrieval_sheet
from components.pictures.canvas import Pixels
from components.pictures.explanation import ExplanationRow, explanation_sheet
from components.pictures.sheets import TOP_RESULTS
from irra.progress import progress
from irra.search.engine import Hit, SearchEngine
from irra.search.explain import explain


def draw_results(path: Path, engine: SearchEngine, texts: Sequence[str], rankings: Sequence[Sequence[Hit]]) -> None:
    """Draw each query with its best ten pictures."""
    rows = [
        RetrievalRow(text, None, [(pixels_of(engine, hit), hit.score, None) for hit in hits[:TOP_RESULTS]], None)
        for text, hits in zip(texts, rankings, strict=True)
    ]
    retrieval_sheet(path, f"Best of {engine.gallery.size:,} pictures", rows)


def draw_explanations(
    path: Path, engine: SearchEngine, texts: Sequence[str], rankings: Sequence[Sequence[Hit]]
) -> None:
    """Draw each query's best ten pictures with the words and the places that carry their scores."""
    found = [(text, hit) for text, hits in zip(texts, rankings, strict=True) for hit in hits[:TOP_RESULTS]]
    rows = []
    for text, hit in progress(found, "explain", len(found), "pictures"):
        pixels = pixels_of(engine, hit)
        explanation = explain(engine.model, pixels, text)
        person = "" if hit.pid is None else f", person {hit.pid}"
        title = f"rank {hit.rank}: {hit.score:.3f}{person}"
        rows.append(ExplanationRow(title, pixels, explanation.heat, explanation.words))
    explanation_sheet(path, rows)


def pixels_of(engine: SearchEngine, hit: Hit) -> Pixels:
    """A hit's picture, uint8 (H, W, 3) at the model's image size."""
    return engine.gallery.pixels(hit.row, engine.model.spec.image_size)
