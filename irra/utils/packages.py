"""The folder of an installed package, found without importing it."""

import importlib.util
from pathlib import Path


def folder_of(package: str) -> Path:
    """The folder with the files of an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent
