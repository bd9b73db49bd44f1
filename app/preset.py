"""Write params.yaml: a preset, or its own values with every missing key and up-to-date comments.

python -m app.preset cuhk-pedes  # what `make preset NAME=cuhk-pedes` runs
python -m app.preset --complete  # what `make params` runs
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
    """Write the complete preset `name` to params.yaml; an edited params.yaml is kept as params.yaml.bak.

    Raises:
        UserError: There is no such preset.
    """
    known = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"no preset {name!r}; {hint}available: {', '.join(known)}")
    _replace_params(render_file(known[name]))
    print(f"{PARAMS} is now the preset {name}; `make repro` runs it")


def complete_params() -> None:
    """Rewrite params.yaml with all keys and comments, keeping its values and its first lines.

    Raises:
        UserError: The file is missing, or a value is invalid.
    """
    _replace_params(render_file(PARAMS))
    print(f"{PARAMS} now has every key")


def _replace_params(text: str) -> None:
    generated = [text, *map(render_file, PRESETS.glob("*.yaml"))]
    if PARAMS.exists() and PARAMS.read_bytes() not in [known.encode() for known in generated]:
        backup = PARAMS.with_suffix(".yaml.bak")
        shutil.copyfile(PARAMS, backup)
        print(f"kept your edited {PARAMS} as {backup}")
    write_text(PARAMS, text)


def main(arguments: list[str]) -> None:
    """Run the command line."""
    if arguments == [COMPLETE]:
        complete_params()
    else:
        write_preset(arguments[0] if arguments else "")


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: main(sys.argv[1:])))
