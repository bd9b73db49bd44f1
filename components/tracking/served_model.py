"""The model that MLflow serves: sentences in, the best pictures of its gallery out.

Input: one row per query, with the columns `text` (string) and, optionally, `top_k` (a whole number; 10 in rows where it
is missing or null) and `also_says` (a list of other sentences about the same person: the mean of all their unit
embeddings is searched for).
Output: one row per query, in the same order, with the columns

    hits    a list of `{"rank", "score", "path", "pid"}`, best first: `rank` counts from 1, `score` is the cosine
            similarity, and `pid` is null if the person is unknown. `pandas.DataFrame(output.hits[0])` is a table.
    note    says what of a sentence was not read because it is longer than the model can read; usually null

    model = mlflow.pyfunc.load_model("models:/irra@champion")
    model.predict(pandas.DataFrame({"text": ["a man in a red coat"], "top_k": [5]}))

    mlflow models serve --model-uri models:/irra@champion --env-manager local --port 5001
    curl http://127.0.0.1:5001/invocations --json '{"dataframe_records": [{"text": "a man in a red coat", "top_k": 5}]}'

MLflow copies this file and the package `irra` into the model and runs them without the rest of the project.
An empty query or sentence, one that is not a string, a missing column or a `top_k` that is no whole number of 1..1000
raises MlflowException, which is status 400 over HTTP.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from pandas.api.types import is_float, is_integer, is_scalar

from irra.search.engine import MAX_RESULTS, Hit, SearchEngine, clean_query
from irra.utils.errors import UserError

TOP_K = 10


class SearchModel(PythonModel):  # type: ignore[misc]
    """Searches the gallery that was registered with the model; it can answer several requests at once."""

    def load_context(self, context: Any) -> None:
        """Open the two artifacts: the model folder and the index folder."""
        self._engine = SearchEngine.open(Path(context.artifacts["model"]), Path(context.artifacts["index"]))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Find the `top_k` best pictures for the `text` of every row.

        Rows with equal `top_k` are searched together, so that a row with a large one does not slow down the others.

        Raises:
            MlflowException: A row is invalid; the message names it, counted from 1.
        """
        texts = model_input["text"].tolist()
        nothing = [None] * len(texts)
        wanted, said = (list(model_input.get(name, nothing)) for name in ("top_k", "also_says"))
        try:
            more = [checked_sentences(others, row) for row, others in enumerate(said, 1)]
            queries = [[text, *others] for text, others in zip(checked_texts(texts), more, strict=True)]
            counts = [checked_count(count, row) for row, count in enumerate(wanted, 1)]
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        hits: list[list[dict[str, Any]]] = [[] for _ in queries]
        for count in sorted(set(counts)):
            rows = [row for row, top_k in enumerate(counts) if top_k == count]
            rankings = self._engine.search([queries[row] for row in rows], count)
            for row, ranking in zip(rows, rankings, strict=True):
                hits[row] = [as_dict(hit) for hit in ranking]
        notes = [note_of("; ".join(filter(None, map(self._engine.unread, query)))) for query in queries]
        return pd.DataFrame({"hits": hits, "note": notes}, dtype=object)


def checked_texts(texts: list[Any]) -> list[str]:
    """Check the queries and return them cleaned.

    Raises:
        UserError: A query is empty, too long or not a string.
    """
    for row, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise UserError(f"query {row}: expected a text, found {text!r}")
    return [clean_query(text, f"query {row}") for row, text in enumerate(texts, 1)]


def checked_sentences(others: Any, row: int) -> list[str]:
    """Check the other sentences of a row and return them cleaned; none if the column or the value is missing.

    Raises:
        UserError: They are not a list of sentences.
    """
    if others is None or (is_scalar(others) and pd.isna(others)):
        return []
    if is_scalar(others) or isinstance(others, dict) or not all(isinstance(text, str) for text in others):
        raise UserError(f"query {row}: also_says is {others!r}; give a list of sentences")
    return [clean_query(text, f"query {row}: also_says") for text in others]


def checked_count(count: Any, row: int) -> int:
    """Check how many pictures a row asks for; pandas makes a column with missing numbers one of floats.

    Raises:
        UserError: These are too few or too many, or it is no number.
    """
    if is_scalar(count) and pd.isna(count):
        return TOP_K
    if not (is_integer(count) or is_float(count)) or not 1 <= count <= MAX_RESULTS:
        raise UserError(f"query {row}: top_k is {count}; ask for 1 to {MAX_RESULTS} pictures")
    if count % 1:
        raise UserError(f"query {row}: top_k is {count}; ask for a whole number of pictures")
    return int(count)


def note_of(unread: str) -> str | None:
    """What is to be said about the end of a sentence that was not read; None if all of it was."""
    return f"longer than the model can read; not read: {unread}" if unread else None


def as_dict(hit: Hit) -> dict[str, Any]:
    """Convert a hit to the form declared in the model's signature."""
    return {"rank": hit.rank, "score": hit.score, "path": hit.path, "pid": hit.pid}


set_model(SearchModel())
