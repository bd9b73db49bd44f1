"""results.json: what evaluate found out about a model, in the file that all other stages read."""

import json
from pathlib import Path
from typing import Any

from irra.utils.errors import UserError

RESULTS = "results.json"
EVALUATE_FIRST = "evaluate the model first (dvc repro evaluate)"
EVALUATE_AGAIN = "evaluate the model again (dvc repro --force --single-item evaluate)"
PARTS = ("model", "metrics", "intervals")


def read_results(folder: Path) -> dict[str, Any]:
    """Read results.json from the report folder of evaluate.

    Returns:
        `model`, which describes the model, its training and the data it was evaluated on; `metrics` and `intervals`,
        by split, direction and name, in percent.

    Raises:
        UserError: The file is missing, damaged or not the results of evaluate.
    """
    path = folder / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {EVALUATE_FIRST}") from None
    except (ValueError, RecursionError, NotADirectoryError) as error:
        raise UserError(f"{path}: damaged ({error}); {EVALUATE_AGAIN}") from None
    if not isinstance(results, dict) or not all(isinstance(results.get(part), dict) for part in PARTS):
        raise UserError(f"{path}: not the results of `evaluate`; {EVALUATE_AGAIN}")
    return results
