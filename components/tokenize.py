"""Turn captions into token ids, and draw the masking cache for MLM.

python -m components.tokenize           # what `dvc repro tokenize` runs
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.layout import PREPARED, TOKENS
from components.stage import main
from irra.config import TokenizeConfig
from irra.data.tokens import tokenize_dataset


@dataclass(frozen=True)
class Inputs:
    """The prepared store."""

    prepared: Path = PREPARED


@dataclass(frozen=True)
class Outputs:
    """The token store."""

    tokens: Path = TOKENS


def run(inputs: Inputs, outputs: Outputs, config: TokenizeConfig) -> dict[str, Any]:
    """Tokenize the captions of a prepared store and return statistics."""
    return tokenize_dataset(inputs.prepared, config, outputs.tokens)


if __name__ == "__main__":
    raise SystemExit(main("tokenize", run, Inputs, Outputs))
