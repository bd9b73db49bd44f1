"""Run all benchmarks that need no GPU, one after the other: `make bench`.

The last one, of the search page, uses the model and the index that `dvc repro` made.

On a machine with a GPU, `python -m benchmarks.training` measures training.
"""

import subprocess
import sys

NAMES = ("prepare", "tokenize", "evaluation", "search", "web")


def main() -> None:
    """Run each benchmark in its own process, so that memory is measured separately."""
    for name in NAMES:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
