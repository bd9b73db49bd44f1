"""Default paths of what the stages read and write, which dvc.yaml uses too, and where inputs from outside are."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
PREPARED, TOKENS = Path("data/prepared"), Path("data/tokens")
MODEL, INDEX = Path("model"), Path("data/index")
RANKINGS = Path("data/rankings.parquet")
REPORTS = Path("reports")
CURVES, EVALUATION, PICTURES = REPORTS / "train", REPORTS / "evaluate", REPORTS / "report"
CHAMPION = REPORTS / "champion"
DECISION, REGISTRATION = REPORTS / "gate" / "decision.json", REPORTS / "register" / "registration.json"
ABLATION = REPORTS / "ablation"
MODEL_RUN = Path("data/model-run.json")  # names the MLflow run that trained the model; changes no result
DATASET_RECORD, WEIGHTS_RECORD = REPORTS / "inputs" / "dataset.json", REPORTS / "inputs" / "weights.json"
OTHERS_RECORD = REPORTS / "inputs" / "also.json"


def project() -> Path:
    """The current folder or, in the temporary workspace of a DVC experiment, the project it belongs to."""
    here = Path.cwd()
    return next((folder.parent for folder in here.parents if folder.name == ".dvc"), here)


def outside(path: str) -> str:
    """Where the file or folder is that a parameter names: git brings none that it ignores to a temporary workspace."""
    there = project() / path
    return str(there) if os.path.lexists(there) and not os.path.lexists(path) else path
