"""Where in the project the stages leave what others take up, as dvc.yaml has it."""

from pathlib import Path

PARAMS = Path("params.yaml")
PREPARED, TOKENS = Path("data/prepared"), Path("data/tokens")
MODEL, INDEX = Path("model"), Path("data/index")
REPORTS = Path("reports")
EVALUATION = REPORTS / "evaluate"
