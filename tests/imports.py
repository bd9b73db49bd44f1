"""Which modules of the project a module imports, according to its source, and which can change an output."""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

from components.stages import Stage

ROOT = Path(__file__).parent.parent
PACKAGES = ("irra", "components", "app")

# Modules and whole packages that need not be dependencies in dvc.yaml, because they cannot change what a stage writes.
# The same holds for modules that only these import.
CANNOT_CHANGE_AN_OUTPUT = {
    "components.check": "refuses parameters whose split the data lack",
    "components.layout": "paths, which dvc.yaml names too or parameters name",
    "components.stage": "the command line; DVC tracks the parameters and files that it passes on",
    "components.tracking": "what is logged to MLflow",
    "components.s3": "copies files unchanged",
    "irra.config": "checks values that DVC tracks; a stage depends only on the module of its own section",
    "irra.data.splits": "refuses parameters whose split the data lack",
    "irra.search.where": "which pictures are searched, not what is in an index",
    "irra.utils.cores": "how many processes share work, on which no result depends",
    "irra.utils.errors": "messages",
    "irra.utils.files": "writes a file completely or not at all, whatever it holds",
    "irra.utils.locks": "who writes, not what",
    "irra.utils.packages": "where an installed package lies",
    "irra.utils.progress": "progress on a terminal",
    "irra.utils.records": "whether a file is what was written",
    "irra.utils.signals": "when a training stops; it resumes exactly",
}
# Folders that are a dependency as a whole, although the stage does not import all of their modules.
TAKEN_WHOLE = {"components/figures": "one line for all figures; drawing them again takes seconds"}
# Data files that a module reads.
PACKAGE_DATA = {"irra/backbones/__init__.py": "irra/backbones/*.json"}


@cache
def imported_names(path: Path) -> set[str]:
    """Return the dotted names that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@cache
def source_of(name: str) -> Path | None:
    """Return the file of a module of this project."""
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def import_closure(start: Path, is_left_out: Callable[[str], bool] = lambda name: False) -> set[str]:
    """Return all files of this project that `start` can execute, including itself, relative to the project.

    Modules that are left out are not followed either.
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
    """Return all files of this project that can change what a stage writes: modules, and data that they read.

    These are the import closures of its module and of its configuration section, without CANNOT_CHANGE_AN_OUTPUT.
    """
    starts = [source_of(name) for name in (stage.module, f"irra.config.{stage.section}")]
    closure = {name for start in starts if start is not None for name in import_closure(start, is_harmless)}
    modules = {name for name in closure if not is_only_a_docstring(ROOT / name)}
    patterns = [pattern for module, pattern in PACKAGE_DATA.items() if module in modules]
    return modules | {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}


@cache
def project_names(path: Path) -> set[str]:
    """Return the names that a file imports from this project, and the packages whose `__init__` also runs."""
    names = {name for name in imported_names(path) if name.split(".")[0] in PACKAGES}
    return names | {name.rpartition(".")[0] for name in names} | {".".join(path.relative_to(ROOT).parts[:-1])}


def is_harmless(name: str) -> bool:
    """Whether a module, or a name imported from one, belongs to CANNOT_CHANGE_AN_OUTPUT."""
    return any(name == harmless or name.startswith(f"{harmless}.") for harmless in CANNOT_CHANGE_AN_OUTPUT)


@cache
def is_only_a_docstring(path: Path) -> bool:
    """Whether a file, such as most `__init__.py`, holds no code."""
    statements = ast.parse(path.read_text()).body
    return all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in statements)


def files_of(dependency: str) -> set[str]:
    """Return the files that a dependency in dvc.yaml covers: one file, or all in a folder that hold code or data."""
    path = ROOT / dependency
    if not path.is_dir():
        return {dependency}
    modules = {file for file in path.rglob("*.py") if not is_only_a_docstring(file)}
    return {str(file.relative_to(ROOT)) for file in modules | set(path.rglob("*.json"))}
