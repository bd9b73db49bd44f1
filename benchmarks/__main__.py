"""All benchmarks that need no GPU, one after the other: `make bench`.

The last one, of the search page, takes the model and the index that `dvc repro` made.

On a machine with a GPU, `python -m benchmarks.training` measures training there.
"""

import subprocess
import sys

NAMES = ("prepare", "tokenize", "evaluation", "search", "web")


def main() -> None:
    """Run each in a process of its own, so that one's memory does not count for another."""
    for name in NAMES:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
