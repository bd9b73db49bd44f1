"""Write a preset to params.yaml.

python -m app.preset cuhk-pedes  # as `make preset NAME=cuhk-pedes` does
"""

import difflib
import shutil
import sys
from pathlib import Path

from components.layout import PARAMS
from components.stage import guarded
from irra.config import load_params
from irra.utils.errors import UserError
from irra.utils.files import write_text

PRESETS = Path("presets")


def write_preset(name: str) -> None:
    """Copy the preset `name` to params.yaml; parameters that are in no preset are kept as params.yaml.bak."""
    known = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"no preset {name!r}: {hint}there are {', '.join(known)}")
    load_params(known[name])
    if PARAMS.exists() and PARAMS.read_bytes() not in [path.read_bytes() for path in known.values()]:
        backup = PARAMS.with_suffix(".yaml.bak")
        shutil.copyfile(PARAMS, backup)
        print(f"kept your edited {PARAMS} as {backup}")
    write_text(PARAMS, known[name].read_text())
    print(f"{PARAMS} is now the preset {name}; `make repro` runs it")


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: write_preset(sys.argv[1] if len(sys.argv) > 1 else "")))
