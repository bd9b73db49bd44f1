"""Queue a DVC experiment for every combination of losses and seed: the ablation study of the paper's Table 4.

python -m components.ablation --losses itc sdm --seeds 0 1      # `make ablation` does this, then runs them

Experiments of this commit that have finished or are queued are not queued again; after `dvc exp remove NAME`, an
experiment is trained again.
"""

import argparse
import subprocess
from collections.abc import Sequence

from components.stage import guarded

LOSSES = ("itc", "sdm", "sdm+id", "sdm+mlm", "sdm+mlm+id")
SEEDS = (0, 1, 2)
NAME_PREFIX = "ablation-"  # of the DVC experiments in the study


def queue(losses: Sequence[str], seeds: Sequence[int]) -> None:
    """Queue the experiments that do not exist yet.

    Raises:
        SystemExit: DVC failed; the exit status is DVC's.
    """
    existing = {*_dvc("exp", "list", "--name-only").split(), *_queued(_dvc("queue", "status"))}
    for names in losses:
        for seed in seeds:
            experiment = f"{NAME_PREFIX}{names.replace('+', '-')}-{seed}"
            if experiment not in existing:
                changed = ("-S", f"train.loss_names={names}", "-S", f"train.seed={seed}")
                print(_dvc("exp", "run", "--queue", "--name", experiment, *changed), end="", flush=True)


def _queued(status: str) -> list[str]:
    """Names of the queued experiments in the output of `dvc queue status`: lines of task, name, time and state."""
    return [line.split()[1] for line in status.splitlines() if line.rstrip().endswith(" Queued")]


def _dvc(*arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options --losses and --seeds."""
    seeds = " ".join(map(str, SEEDS))
    parser.add_argument("--losses", nargs="+", default=LOSSES, help=f"(default: {' '.join(LOSSES)})")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help=f"(default: {seeds})")


def main() -> None:
    """Queue the experiments chosen on the command line."""
    parser = argparse.ArgumentParser(prog="python -m components.ablation", description=__doc__.split("\n")[0])
    add_choice(parser)
    options = parser.parse_args()
    queue(options.losses, options.seeds)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
