"""Find installed packages that have lost files, and print the options with which uv reinstalls them.

python tools/check_environment.py      # with the environment's Python, as `make setup` does

Prints nothing if no files are missing. uv itself finds missing packages, except the project, which the requirements do
not list, and it counts a package as installed as long as its record is left. This script uses only the standard
library, which cannot get lost with the environment.
"""

import csv
import os
import re
import sysconfig
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def repairs(site: Path, project: Path) -> list[str]:
    """Return options for `uv pip install` that repair the packages in `site`, where `project` should be too."""
    own = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    records = {_name(record.parent): record for record in sorted(site.glob("*.dist-info/RECORD"))}
    broken = [name for name, record in records.items() if _has_lost_files(record)]
    missing = [] if own in records else [own]
    return [f"--reinstall-package={name}" for name in broken + missing]


def _name(folder: Path) -> str:
    """Return the normalized name of a distribution, with which its folder begins."""
    return re.sub(r"[-_.]+", "-", folder.name.split("-")[0]).lower()


def _has_lost_files(record: Path) -> bool:
    """Whether any installed file is missing. Bytecode does not count: Python writes it again."""
    site = record.parent.parent
    with record.open(encoding="utf-8", newline="") as file:
        paths = [row[0] for row in csv.reader(file) if row and not row[0].endswith(".pyc")]
    return not all(os.path.lexists(f"{site}/{path}") for path in paths)


if __name__ == "__main__":
    print(*repairs(Path(sysconfig.get_path("purelib")), PROJECT))
