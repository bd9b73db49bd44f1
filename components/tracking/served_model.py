"""The model that MLflow serves: sentences in, the best pictures of its gallery out.

Input: one row per query, with the columns `text` (string) and, optionally, `top_k` (long; 10 if the column is missing).
Output: one row per query, in the same order, with the column `hits`: a list of `{"rank", "score", "path", "pid"}`, best
first. `rank` counts from 1, `score` is the cosine similarity, and `pid` is null if the person is unknown. For a table
of one query's hits, use `pandas.DataFrame(output.hits[0])`.

    model = mlflow.pyfunc.load_model("models:/irra@champion")
    model.predict(pandas.DataFrame({"text": ["a man in a red coat"], "top_k": [5]}))

    mlflow models serve --model-uri models:/irra@champion --env-manager local --port 5001
    curl http://127.0.0.1:5001/invocations --json '{"dataframe_records": [{"text": "a man in a red coat", "top_k": 5}]}'

MLflow copies this file and the package `irra` into the model and runs them without the rest of the project.
An empty query, a query that is not a string, a missing column or a `top_k` outside 1..1000 raises MlflowException,
which is status 400 over HTTP.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

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
        counts = model_input["top_k"].tolist() if "top_k" in model_input else [TOP_K] * len(texts)
        try:
            queries = checked_rows(texts, counts)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        hits: list[list[dict[str, Any]]] = [[] for _ in queries]
        for count in sorted(set(counts)):
            rows = [row for row, top_k in enumerate(counts) if top_k == count]
            rankings = self._engine.search([queries[row] for row in rows], count)
            for row, ranking in zip(rows, rankings, strict=True):
                hits[row] = [as_dict(hit) for hit in ranking]
        return pd.DataFrame({"hits": hits}, dtype=object)


def checked_rows(texts: list[Any], counts: list[Any]) -> list[str]:
    """Check the rows and return their cleaned queries.

    Raises:
        UserError: A query is empty, too long or not a string, or asks for too few or too many pictures.
    """
    queries = []
    for row, (text, count) in enumerate(zip(texts, counts, strict=True), 1):
        if not isinstance(text, str):
            raise UserError(f"query {row}: expected a text, found {text!r}")
        if not 1 <= count <= MAX_RESULTS:
            raise UserError(f"query {row}: top_k is {count}; ask for 1 to {MAX_RESULTS} pictures")
        queries.append(clean_query(text, f"query {row}"))
    return queries


def as_dict(hit: Hit) -> dict[str, Any]:
    """Convert a hit to the form declared in the model's signature."""
    return {"rank": hit.rank, "score": hit.score, "path": hit.path, "pid": hit.pid}


set_model(SearchModel())
