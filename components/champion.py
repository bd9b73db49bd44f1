"""Evaluate the champion on the data of today, so that a model trained on them can be compared with it.

python -m components.champion           # then `make register` compares on these data
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from components.evaluate import Outputs as Files
from components.evaluate import write_results
from components.layout import CHAMPION, PARAMS, PREPARED, TOKENS
from components.stage import guarded
from components.tracking.models import resolve_model
from components.tracking.registry import CHAMPION as ALIAS
from components.tracking.registry import Registry
from irra.config import EvaluateConfig, RegistryConfig, load_params
from irra.evaluation import evaluate
from irra.utils.files import replace_folder


@dataclass(frozen=True)
class Inputs:
    """The prepared store and its tokens."""

    prepared: Path = PREPARED
    tokens: Path = TOKENS


@dataclass(frozen=True)
class Outputs:
    """A folder for the same files as the report of evaluate; empty if there is no champion."""

    report: Path = CHAMPION


def run(inputs: Inputs, outputs: Outputs, config: EvaluateConfig, registry: RegistryConfig) -> str:
    """Evaluate the champion, without logging, since its run has the metrics on its own data.

    Returns:
        A sentence about what was done.

    Raises:
        UserError: MLflow failed, or the data do not fit the champion's sizes.
    """
    champion = Registry(registry.model_name).champion()
    with replace_folder(outputs.report) as folder:
        if champion is None:
            return f"{registry.model_name} has no champion yet"
        model = resolve_model(f"models:/{registry.model_name}@{ALIAS}")
        measured = evaluate(model, inputs.prepared, inputs.tokens, config)
        write_results(model, inputs.prepared, Files(folder, folder / "rankings.parquet"), config, measured)
    return f"version {champion.version} of {registry.model_name} was evaluated on these data"


def main() -> None:
    """Evaluate the champion with the sections `evaluate` and `registry` of the parameter file."""
    parser = argparse.ArgumentParser(prog="python -m components.champion", description=__doc__.split("\n")[0])
    parser.add_argument("--params", type=Path, default=PARAMS, help="parameter file (default: %(default)s)")
    params = load_params(parser.parse_args().params)
    print(run(Inputs(), Outputs(), params.evaluate, params.registry))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
