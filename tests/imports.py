"""Which modules of this project a module imports, read from its source, and which of them can change an output."""

import ast
from collections.abc import Callable
from pathlib import Path

from components.stages import Stage

ROOT = Path(__file__).parent.parent
PACKAGES = ("irra", "components", "app")

# Modules, and packages with all that is in them, that are no dependencies in dvc.yaml: nothing that a stage writes
# changes with them, and what only they import counts as little.
CANNOT_CHANGE_AN_OUTPUT = {
    "components.layout": "where files lie, which dvc.yaml says too",
    "components.stage": "the command line; DVC tracks the parameters and files that it hands over",
    "components.tracking": "what MLflow is told",
    "components.s3": "brings files from elsewhere as they are",
    "irra.config": "checks values that DVC tracks; a stage depends on the module of its own section alone",
    "irra.utils.cores": "how many processes work, on which no result depends",
    "irra.utils.errors": "messages",
    "irra.utils.files": "whole files or none, whatever their content",
    "irra.utils.locks": "who writes, not what",
    "irra.utils.progress": "bars and lines on a terminal",
    "irra.utils.records": "whether a file is what was written",
    "irra.utils.signals": "when a training stops, which goes on as if it had not",
}
# Folders that are a dependency as a whole, although the stage imports only most of them.
TAKEN_WHOLE = {"components/figures": "all figures in one line; to draw them again takes seconds"}
# Files that a module reads and that are no modules.
PACKAGE_DATA = {"irra/backbones/__init__.py": "irra/backbones/*.json"}


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def source_of(name: str) -> Path | None:
    """The file of a module of this project."""
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def import_closure(start: Path, is_left_out: Callable[[str], bool] = lambda name: False) -> set[str]:
    """All files of this project that running `start` can execute, relative to the project, itself included.

    The names that are left out are not followed either.
    """
    found: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        names = [name for name in project_names(path) if not is_left_out(name)]
        todo += [source for name in names if (source := source_of(name)) is not None]
    return {str(path.relative_to(ROOT)) for path in found}


def code_of(stage: Stage) -> set[str]:
    """All files of this project that can change what a stage writes: modules, and the data that they read.

    Those are its import closure without CANNOT_CHANGE_AN_OUTPUT, and that of its section of the configuration.
    """
    starts = [source_of(name) for name in (stage.module, f"irra.config.{stage.section}")]
    closure = {name for start in starts if start is not None for name in import_closure(start, is_harmless)}
    modules = {name for name in closure if not is_docstring_alone(ROOT / name)}
    patterns = [pattern for module, pattern in PACKAGE_DATA.items() if module in modules]
    return modules | {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}


def project_names(path: Path) -> set[str]:
    """What a file imports of this project, and the packages whose `__init__` runs with it."""
    names = {name for name in imported_names(path) if name.split(".")[0] in PACKAGES}
    return names | {name.rpartition(".")[0] for name in names} | {".".join(path.relative_to(ROOT).parts[:-1])}


def is_harmless(name: str) -> bool:
    """Whether a module, or what is imported of it, is among CANNOT_CHANGE_AN_OUTPUT."""
    return any(name == harmless or name.startswith(f"{harmless}.") for harmless in CANNOT_CHANGE_AN_OUTPUT)


def is_docstring_alone(path: Path) -> bool:
    """Whether a file, such as most `__init__.py`, holds nothing that runs."""
    statements = ast.parse(path.read_text()).body
    return all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in statements)


def files_of(dependency: str) -> set[str]:
    """The code that a dependency in dvc.yaml stands for: a file, or all in a folder, but modules that run nothing."""
    path = ROOT / dependency
    if not path.is_dir():
        return {dependency}
    modules = {file for file in path.rglob("*.py") if not is_docstring_alone(file)}
    return {str(file.relative_to(ROOT)) for file in modules | set(path.rglob("*.json"))}
