"""Run one part in this process and print its rows as lines of JSON: what `python -m benchmarks` starts for each part.

python -m benchmarks.part training cpu
"""

import argparse
import json
from dataclasses import asdict
from importlib import import_module


def main() -> None:
    """Print each row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part")
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    import torch  # here, since the processes that some parts spawn import this module

    part = import_module(f"benchmarks.{arguments.part}")
    for row in part.measure(torch.device(arguments.device), arguments.small):
        print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
