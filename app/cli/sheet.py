"""Draw the results of free queries: the pictures themselves, or why each of them was found."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from components.figures import RetrievalRow, retrieval_sheet
from components.figures.canvas import Pixels
from components.figures.explanation import ExplainedQuery, ExplanationRow, explanation_sheet
from components.figures.sheets import TOP_RESULTS
from irra.search.engine import Hit, SearchEngine
from irra.search.explain import explain
from irra.utils.progress import progress


def draw_results(path: Path, engine: SearchEngine, texts: Sequence[str], rankings: Sequence[Sequence[Hit]]) -> None:
    """Draw each query with its ten best pictures."""
    rows = [
        RetrievalRow(text, None, [(pixels_of(engine, hit), hit.score, None) for hit in hits[:TOP_RESULTS]], None)
        for text, hits in zip(texts, rankings, strict=True)
    ]
    retrieval_sheet(path, f"Best of {engine.gallery.size:,} pictures", rows)


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
