"""Print what of an environment has lost files, as options with which uv installs it again; nothing where all is there.

python tools/check_environment.py      # with the environment's Python, as `make setup` does

uv finds out by itself which packages are missing, but takes one for installed whose record alone is left; and the
project is in no list of requirements. Only the standard library is used: it is what an environment never loses.
"""

import csv
import os
import re
import sysconfig
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def repairs(site: Path, project: Path) -> list[str]:
    """Options for `uv pip install` that mend the packages in the folder `site`, among which `project` should be."""
    own = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    records = {_name(record.parent): record for record in sorted(site.glob("*.dist-info/RECORD"))}
    broken = [name for name, record in records.items() if name != own and _has_lost_files(record)]
    mends = [f"--reinstall-package={name}" for name in broken]
    if own not in records or _has_lost_files(records[own]):
        mends.append(f"--editable={project}")
    return mends


def _name(folder: Path) -> str:
    """A distribution's name in its normal form, which its folder begins with."""
    return re.sub(r"[-_.]+", "-", folder.name.split("-")[0]).lower()


def _has_lost_files(record: Path) -> bool:
    """Whether any file that was installed is gone, bytecode excepted, which Python writes anew."""
    site = record.parent.parent
    with record.open(encoding="utf-8", newline="") as file:
        paths = [row[0] for row in csv.reader(file) if row and not row[0].endswith(".pyc")]
    return not all(os.path.lexists(f"{site}/{path}") for path in paths)


if __name__ == "__main__":
    print(*repairs(Path(sysconfig.get_path("purelib")), PROJECT))
