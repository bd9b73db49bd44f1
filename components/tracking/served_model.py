"""The model that MLflow serves: sentences in, the best pictures of its gallery out.

Input: one row per query, with the columns `text` (string) and, optionally, `top_k` (a whole number; 10 in rows where it
is missing or null), `also_says` (a list of other sentences about the same person: the mean of all their unit
embeddings is searched for) and `where` (a condition on the metadata of the pictures, such as `camera in (3, 4)`).
Output: one row per query, in the same order, with the columns

    hits    a list of `{"rank", "score", "path", "pid"}`, best first: `rank` counts from 1, `score` is the cosine
            similarity, and `pid` is null if the person is unknown. `pandas.DataFrame(output.hits[0])` is a table.
            In a gallery with metadata, each has `metadata` too: an object, where times are as in ISO 8601. Of a person
            who was followed from frame to frame, only the best picture is a hit; its `span` says how long it was.
    note    says what of a sentence was not read because it is longer than the model can read; usually null

    model = mlflow.pyfunc.load_model("models:/irra@champion")
    model.predict(pandas.DataFrame({"text": ["a man in a red coat"], "top_k": [5]}))

    mlflow models serve --model-uri models:/irra@champion --env-manager local --port 5001
    curl http://127.0.0.1:5001/invocations --json '{"dataframe_records": [{"text": "a man in a red coat", "top_k": 5}]}'

The gallery is the one that was registered with the model. `model_config` names another one that was made with this
model, a folder or the address of one in LanceDB, which must be installed; so does an environment variable, to a server:

    mlflow.pyfunc.load_model("models:/irra@champion", model_config={"index": "lance:s3://bucket/gallery"})
    export MLFLOW_PYFUNC_INFERENCE_CONFIG='{"index": "lance:s3://bucket/gallery"}'

MLflow copies this file and the package `irra` into the model and runs them without the rest of the project.
An empty query or sentence, one that is not a string, a missing column, a `top_k` that is no whole number of 1..1000 or
a `where` that is no condition on the metadata raises MlflowException, which is status 400 over HTTP.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from pandas.api.types import is_float, is_integer, is_scalar

from irra.search.engine import MAX_RESULTS, Hit, SearchEngine, clean_query
from irra.search.where import parse_condition
from irra.utils.errors import UserError

TOP_K = 10
INDEX = "index"  # the artifact, and its address in the configuration


class SearchModel(PythonModel):  # type: ignore[misc]
    """Searches the gallery that was registered with the model; it can answer several requests at once."""

    def load_context(self, context: Any) -> None:
        """Open the two artifacts: the model folder and the index folder, unless the configuration names another."""
        index = (context.model_config or {}).get(INDEX) or context.artifacts[INDEX]
        self._engine = SearchEngine.open(Path(context.artifacts["model"]), index)

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Find the `top_k` best pictures for the `text` of every row.

        Rows with equal `top_k` and `where` are searched together, so that a large one does not slow down the others.

        Raises:
            MlflowException: A row is invalid; the message names it, counted from 1.
        """
        texts = model_input["text"].tolist()
        nothing = [None] * len(texts)
        wanted, said, asked = (list(model_input.get(name, nothing)) for name in ("top_k", "also_says", "where"))
        try:
            more = [checked_sentences(others, row) for row, others in enumerate(said, 1)]
            queries = [[text, *others] for text, others in zip(checked_texts(texts), more, strict=True)]
            counts = [checked_count(count, row) for row, count in enumerate(wanted, 1)]
            conditions = [self._checked_condition(where, row) for row, where in enumerate(asked, 1)]
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        hits: list[list[dict[str, Any]]] = [[] for _ in queries]
        groups: dict[tuple[int, str | None], list[int]] = {}
        for row, settings in enumerate(zip(counts, conditions, strict=True)):
            groups.setdefault(settings, []).append(row)
        for (count, where), rows in groups.items():
            rankings = self._engine.search([queries[row] for row in rows], count, where=where)
            for row, ranking in zip(rows, rankings, strict=True):
                hits[row] = [as_dict(hit) for hit in ranking]
        notes = [note_of("; ".join(filter(None, map(self._engine.unread, query)))) for query in queries]
        return pd.DataFrame({"hits": hits, "note": notes}, dtype=object)

    def _checked_condition(self, where: Any, row: int) -> str | None:
        """Check the condition of a row; there is none if the column or the value is missing.

        Raises:
            UserError: It is not a condition on the gallery's metadata.
        """
        if where is None or (is_scalar(where) and pd.isna(where)):
            return None
        if not isinstance(where, str):
            raise UserError(f'query {row}: where is {where!r}; give a condition such as "camera in (3, 4)"')
        try:
            return parse_condition(where, self._engine.gallery.columns).text
        except UserError as error:
            raise UserError(f"query {row}: {error}") from None


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
    document = hit.document()
    del document["row"]
    return document


set_model(SearchModel())
