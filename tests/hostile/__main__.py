"""Run the hostile campaigns and print a table of counts; the exit status is 1 if one case was not clear.

python -m tests.hostile [CAMPAIGN ...] [--seed 0] [--minutes 15]     # `make test-hostile` runs all
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.outcomes import Outcomes, table

# A campaign is a module here with `run(folder, outcomes, seed, deadline)`: it works in the empty `folder`, and stops
# before `deadline` (time.monotonic) by leaving out cases, never by passing them.
CAMPAIGNS = {"kills": 5.0, "outages": 2.5, "damage": 3.5, "inputs": 3.0}  # minutes of each when all have 15
ALL_MINUTES = 15.0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; without names, it means all campaigns."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.split("\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"any of {', '.join(CAMPAIGNS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of moments, bytes and inputs (default: 0)")
    parser.add_argument("--minutes", type=float, default=ALL_MINUTES, help="for all campaigns (default: 15)")
    options = parser.parse_args(arguments)
    if unknown := set(options.campaigns) - set(CAMPAIGNS):
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    options.campaigns = options.campaigns or list(CAMPAIGNS)
    return options


def main() -> int:
    """Run the campaigns named on the command line."""
    options = parse(sys.argv[1:])
    finished = []
    for name in options.campaigns:
        outcomes = Outcomes(name)
        limit = 60 * CAMPAIGNS[name] * options.minutes / ALL_MINUTES
        with tempfile.TemporaryDirectory(prefix=f"hostile-{name}-", ignore_cleanup_errors=True) as folder:
            started = time.monotonic()
            importlib.import_module(f"tests.hostile.{name}").run(Path(folder), outcomes, options.seed, started + limit)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        finished.append(outcomes)
    print(table(finished))
    problems = [problem for outcomes in finished for problem in outcomes.problems]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
