"""Queue a DVC experiment for every set of losses and every seed: the paper's study, its Table 4.

python -m components.ablation --losses itc sdm --seeds 0 1      # as `make ablation` does before it runs them

Experiments of this commit that are done or waiting are not queued again; `dvc exp remove NAME` has one trained anew.
"""

import argparse
import subprocess
from collections.abc import Sequence

from components.stage import guarded

LOSSES = ("itc", "sdm", "sdm+id", "sdm+mlm", "sdm+mlm+id")
SEEDS = (0, 1, 2)
NAME_PREFIX = "ablation-"  # of the DVC experiments that belong to the comparison


def queue(losses: Sequence[str], seeds: Sequence[int]) -> None:
    """Queue what is not there yet; ends with DVC's exit status where it fails."""
    there = {*_dvc("exp", "list", "--name-only").split(), *_waiting(_dvc("queue", "status"))}
    for names in losses:
        for seed in seeds:
            experiment = f"{NAME_PREFIX}{names.replace('+', '-')}-{seed}"
            if experiment not in there:
                changed = ("-S", f"train.loss_names={names}", "-S", f"train.seed={seed}")
                print(_dvc("exp", "run", "--queue", "--name", experiment, *changed), end="", flush=True)


def _waiting(status: str) -> list[str]:
    """Names of the queued experiments in what `dvc queue status` prints: a line with task, name, time and state."""
    return [line.split()[1] for line in status.splitlines() if line.rstrip().endswith(" Queued")]


def _dvc(*arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The options --losses and --seeds."""
    seeds = " ".join(map(str, SEEDS))
    parser.add_argument("--losses", nargs="+", default=LOSSES, help=f"(default: {' '.join(LOSSES)})")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help=f"(default: {seeds})")


def main() -> None:
    """Queue the experiments that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m components.ablation", description=__doc__.split("\n")[0])
    add_choice(parser)
    options = parser.parse_args()
    queue(options.losses, options.seeds)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
