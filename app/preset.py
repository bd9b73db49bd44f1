"""Write params.yaml: a preset, or what it says already, complete and with its comments of today.

python -m app.preset cuhk-pedes  # as `make preset NAME=cuhk-pedes` does
python -m app.preset --complete  # as `make params` does
"""

import difflib
import shutil
import sys
from pathlib import Path

from components.layout import PARAMS
from components.stage import guarded
from irra.config.presets import render_file
from irra.utils.errors import UserError
from irra.utils.files import write_text

PRESETS = Path("presets")
COMPLETE = "--complete"


def write_preset(name: str) -> None:
    """Write the preset `name` to params.yaml, whole; parameters that are in no preset are kept as params.yaml.bak.

    Raises:
        UserError: There is no such preset.
    """
    known = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"no preset {name!r}: {hint}there are {', '.join(known)}")
    _replace_params(render_file(known[name]))
    print(f"{PARAMS} is now the preset {name}; `make repro` runs it")


def complete_params() -> None:
    """Write params.yaml anew with its own values and first lines: all keys that there are, with their comments.

    Raises:
        UserError: It is not there, or a value cannot be used.
    """
    _replace_params(render_file(PARAMS))
    print(f"{PARAMS} has every key")


def _replace_params(text: str) -> None:
    known = [text, *map(render_file, PRESETS.glob("*.yaml"))]
    if PARAMS.exists() and PARAMS.read_bytes() not in [own.encode() for own in known]:
        backup = PARAMS.with_suffix(".yaml.bak")
        shutil.copyfile(PARAMS, backup)
        print(f"kept your edited {PARAMS} as {backup}")
    write_text(PARAMS, text)


def main(arguments: list[str]) -> None:
    """Do what the command line asks for."""
    if arguments == [COMPLETE]:
        complete_params()
    else:
        write_preset(arguments[0] if arguments else "")


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: main(sys.argv[1:])))
