"""Which modules of this project a module imports, read from its source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("irra", "components", "app")


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


# Files that a module reads and that are no modules.
PACKAGE_DATA = {"irra/backbones/__init__.py": "irra/backbones/*.json"}


def code_of(start: Path) -> set[str]:
    """All files of this project that decide what running `start` does: modules, and the data that they read."""
    modules = import_closure(start)
    patterns = [pattern for module, pattern in PACKAGE_DATA.items() if module in modules]
    return modules | {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}


def import_closure(start: Path) -> set[str]:
    """All files of this project that running `start` can execute, relative to the project, itself included."""
    found: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        names = {name for name in imported_names(path) if name.split(".")[0] in PACKAGES}
        names |= {name.rpartition(".")[0] for name in names}  # a module runs its packages' __init__ first
        names.add(".".join(path.relative_to(ROOT).parts[:-1]))
        todo += [source for name in names if (source := source_of(name)) is not None]
    return {str(path.relative_to(ROOT)) for path in found}
