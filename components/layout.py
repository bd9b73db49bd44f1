"""Default paths of what the stages read and write; dvc.yaml uses the same."""

from pathlib import Path

PARAMS = Path("params.yaml")
PREPARED, TOKENS = Path("data/prepared"), Path("data/tokens")
MODEL, INDEX = Path("model"), Path("data/index")
RANKINGS = Path("data/rankings.parquet")
REPORTS = Path("reports")
CURVES, EVALUATION, PICTURES = REPORTS / "train", REPORTS / "evaluate", REPORTS / "report"
DECISION, REGISTRATION = REPORTS / "gate" / "decision.json", REPORTS / "register" / "registration.json"
ABLATION = REPORTS / "ablation"
