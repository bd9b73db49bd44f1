"""What commands and stages do not import, because it would take longer than most of their work."""

import re
import subprocess
import sys
from pathlib import Path

from irra.data.store import PreparedStore
from tests.cli import answer, write_model, write_photos
from tests.imports import ROOT

COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
OTHER_NETWORKS = {"open_clip", "torchvision", "timm", "transformers", "huggingface_hub"}
TOOLS = {"mlflow", "pandas", "matplotlib", "boto3", "onnx", "onnxruntime", "faiss", "fastapi", "sklearn"}


def imported_by(*arguments: object) -> set[str]:
    """The modules that a Python process with these arguments imports; it must succeed."""
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))


def test_help_imports_neither_numbers_nor_networks() -> None:
    imported = imported_by("-m", "app.cli", "--help")
    assert "typer" in imported
    assert not imported & {"torch", "numpy", "pydantic", "yaml", "rich", "PIL", "pyarrow", *OTHER_NETWORKS, *TOOLS}


def test_a_search_imports_torch_but_not_its_compiler_or_other_networks(store: PreparedStore, tmp_path: Path) -> None:
    model, index = write_model(tmp_path), tmp_path / "index"
    answer("index", "--images", write_photos(tmp_path / "photos", store), "--model", model, "--out", index)
    imported = imported_by("-m", "app.cli", "search", "a person in red", "--index", index, "--model", model)
    assert {"torch", "pyarrow", "ftfy"} <= imported
    assert not imported & (COMPILER | OTHER_NETWORKS | TOOLS)


def test_stages_without_a_model_do_not_import_torch() -> None:
    imported = imported_by("-c", "import components.inputs, components.prepare, components.tokenize, components.report")
    assert "numpy" in imported
    assert not imported & {"torch", "pandas", "mlflow", *OTHER_NETWORKS}


def test_stages_with_a_model_import_no_other_networks() -> None:
    imported = imported_by("-c", "import components.train, components.evaluate, components.index")
    assert "torch" in imported
    assert not imported & (COMPILER | OTHER_NETWORKS | TOOLS)
