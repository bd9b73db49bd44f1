"""A folder of files that may be damaged, and is put right again."""

import os
import shutil
import stat
from pathlib import Path

from components.layout import MODEL_RUN

Signature = tuple[int, int, int, int]
IGNORED = (str(MODEL_RUN), "mlflow.db", "mlartifacts", "mlflow-spool")  # of MLflow, which notes every attempt


class Sandbox:
    """The folder `folder`, which is put right from a copy of it, made here at `pristine`."""

    def __init__(self, folder: Path, pristine: Path) -> None:
        self.folder, self.pristine = folder, pristine
        shutil.copytree(folder, pristine)
        self._intact = self.state()

    def state(self) -> dict[str, Signature]:
        """What tells whether a file or folder was written, replaced or removed, by its path in the folder."""
        found = {}
        for parent, folders, files in os.walk(self.folder):
            for name in [*folders, *files]:
                path = os.path.join(parent, name)
                status = os.lstat(path)
                if name in folders and not os.path.islink(path):
                    found[os.path.relpath(path, self.folder)] = (status.st_mode, 0, 0, 0)
                else:
                    signature = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
                    found[os.path.relpath(path, self.folder)] = signature
        return found

    def restore(self) -> None:
        """Put right whatever is not as in `pristine`."""
        for name, signature in self.state().items():
            if signature != self._intact.get(name):
                _remove(self.folder / name)
        for name in sorted(self._intact):
            if not os.path.lexists(self.folder / name):
                _copy(self.pristine / name, self.folder / name)
        self._intact = self.state()


def changes(before: dict[str, Signature], after: dict[str, Signature]) -> list[str]:
    """Paths that were written, replaced or removed, except new folders and MLflow's own."""
    paths = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    files = [path for path in paths if path in before or not stat.S_ISDIR(after[path][0])]
    return sorted(path for path in files if not path.startswith(IGNORED))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir()
    else:
        shutil.copy2(source, target)
