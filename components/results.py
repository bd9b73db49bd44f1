"""What evaluate found out about a model, in one file that all others read."""

import json
from pathlib import Path
from typing import Any

from irra.utils.errors import UserError

RESULTS = "results.json"
FIRST = "evaluate the model first (dvc repro evaluate)"
AGAIN = "evaluate the model again (dvc repro --force --single-item evaluate)"
PARTS = ("model", "metrics", "intervals")


def read_results(folder: Path) -> dict[str, Any]:
    """Read results.json in the report folder of evaluate.

    `model` says which model was measured on which data, and how it was trained; `metrics` and `intervals` are by split,
    direction and name, in percent.

    Raises:
        UserError: The file is missing, damaged or something else.
    """
    path = folder / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {FIRST}") from None
    except (ValueError, RecursionError, NotADirectoryError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    if not isinstance(results, dict) or not all(isinstance(results.get(part), dict) for part in PARTS):
        raise UserError(f"{path}: not the results of `evaluate`; {AGAIN}")
    return results
