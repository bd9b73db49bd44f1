"""Write the import closure of every stage into dvc.yaml, as `make deps` does after modules were added or moved."""

import re
from pathlib import Path

from tests.imports import ROOT, import_closure


def main() -> None:
    """Replace the .py entries under each stage's deps."""
    path = ROOT / "dvc.yaml"
    lines: list[str] = []
    stage = ""
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"  (\w+):", line):
            stage = match[1]
        if re.fullmatch(r"      - \S+\.py", line):
            continue
        lines.append(line)
        if line == "    deps:":
            lines += [f"      - {name}" for name in sorted(import_closure(Path(ROOT / "components" / f"{stage}.py")))]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
