"""Write the code of every stage into dvc.yaml, as `make deps` does after files were added or moved."""

import re
from pathlib import Path

from tests.imports import ROOT, code_of


def main() -> None:
    """Replace the entries of code under each stage's deps."""
    path = ROOT / "dvc.yaml"
    lines: list[str] = []
    stage = ""
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"  (\w+):", line):
            stage = match[1]
        if re.fullmatch(r"      - irra/\S+\.json|      - \S+\.py", line):
            continue
        lines.append(line)
        if line == "    deps:":
            lines += [f"      - {name}" for name in sorted(code_of(Path(ROOT / "components" / f"{stage}.py")))]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
