"""Notes on disk that say which MLflow run something belongs to: an unfinished training, or a model.

The weights alone do not say it, since two trainings with equal parameters make equal weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irra.utils.errors import UserError
from irra.utils.records import read_record, write_record


@dataclass(frozen=True)
class RunNote:
    """The contents of a note: the fingerprint of the training or model, and the run."""

    fingerprint: str | dict[str, Any]
    run_id: str


def note_run(path: Path, fingerprint: str | Mapping[str, Any], run_id: str | None) -> None:
    """Note the run, or nothing if there is none."""
    if run_id:
        write_record(path, {"fingerprint": fingerprint, "run_id": run_id})


def noted_run(path: Path, fingerprint: str | Mapping[str, Any]) -> str | None:
    """Return the run of the training or model with this fingerprint, or None if the note is of another."""
    try:
        note = read_record(path, RunNote, missing="", cure="")
    except (OSError, UserError):  # a damaged note costs no more than a search, or a new run
        return None
    return note.run_id if note.fingerprint == fingerprint else None
