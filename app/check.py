"""Check params.yaml and the repository before DVC does, whose messages name neither key nor remedy.

python -m app.check              # the first step of `make repro`
"""

from pathlib import Path

from components.layout import PARAMS
from components.stage import guarded
from irra.config import load_params
from irra.config.reader import missing_sections
from irra.utils.errors import UserError


def check(path: Path) -> None:
    """Check the parameter file at `path`.

    Raises:
        UserError: A value is invalid, or a section is missing.
    """
    load_params(path)
    if missing := missing_sections(path):
        raise UserError(f"{path}: no section {', '.join(missing)}; `make params` writes it, with its defaults")


def check_repository(folder: Path) -> None:
    """Check that DVC can work here: a ZIP download of the project has no git repository.

    Raises:
        UserError: There is none, and DVC is not told to do without.
    """
    configs = [path for name in ("config", "config.local") if (path := folder / ".dvc" / name).is_file()]
    if any("no_scm = true" in path.read_text(encoding="utf-8").lower() for path in configs):
        return
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        raise UserError(
            f"{folder}: no git repository, which DVC needs: run `git init`, or `dvc config --local core.no_scm true` "
            "to do without experiments and versions"
        )


def main() -> None:
    """Check the project in the current folder."""
    check_repository(Path.cwd())
    check(PARAMS)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
