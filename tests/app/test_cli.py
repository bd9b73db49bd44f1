"""The command line `irra`: help, answers, exit statuses; and the commands that import, export and describe models."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.console import command
from irra.checkpoint import load_model, model_fingerprint, read_model_metadata
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.utils.records import write_record
from tests.cli import answer, irra, mistake, write_model
from tests.imports import ROOT
from tests.irra.test_checkpoint import official_weights
from tests.models import architecture, small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def test_without_a_command_there_is_help() -> None:
    done = irra()
    assert done.exit_code == 0
    assert "import-official" in done.stdout


def test_help_says_what_exit_statuses_mean_and_how_completion_is_installed() -> None:
    shown = " ".join(irra("--help").stdout.split())
    assert "Exit status: 0 on success" in shown
    assert "run irra --install-completion once" in shown


def test_version_is_shown() -> None:
    assert irra("--version").stdout.startswith("irra 0.")


@pytest.mark.parametrize("name", ["search", "index", "forget", "import-official", "export", "info"])
def test_help_of_every_command_has_an_example_and_json(name: str) -> None:
    shown = irra(name, "--help").stdout
    assert f"Example: irra {name} " in shown
    assert "--json" in shown


def test_the_shell_completes_commands() -> None:
    environment = {"_IRRA_COMPLETE": "complete_bash", "COMP_WORDS": "irra in", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], prog_name="irra", env=environment)
    assert done.stdout.split() == ["index", "info"]


@pytest.mark.parametrize(
    "arguments", [("index", "--images", "."), ("import-official", __file__), ("export", "anything")]
)
def test_no_command_replaces_a_folder_of_something_else(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "holds other files" in mistake(*arguments, "--out", tmp_path)
    assert "is a file" in mistake(*arguments, "--out", tmp_path / "thesis.tex")
    assert "is a file" in mistake(*arguments, "--out", tmp_path / "thesis.tex" / "out")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("index", "--images", "."), ["info.json", "thesis.tex"]),
        (("index", "--images", "."), ["thumbnails.bin"]),
        (("import-official", __file__), ["weights.safetensors", "thesis.tex"]),
        (("import-official", __file__), ["config.json"]),
        (("export", "anything"), ["encoders.json", "thesis.tex"]),
    ],
)
def test_a_folder_that_resembles_an_output_is_not_replaced(
    arguments: tuple[str, ...], names: list[str], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    assert f"would be lost ({names[-1]})" in mistake(*arguments, "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_released_checkpoint_becomes_a_model_like_others(tmp_path: Path) -> None:
    sizes = architecture(width=128)
    sizes["vision_cfg"]["head_width"] = 64
    torch.save({"model": official_weights(small_model(architecture=sizes)), "epoch": 45}, tmp_path / "best.pth")
    write_model(tmp_path)  # will be replaced
    arguments = ("import-official", tmp_path / "best.pth", "--out", tmp_path / "model", "--image-size", 64, 32)
    assert "imported file" in irra(*arguments).stdout
    document = answer(*arguments)
    assert (document["image_size"], document["text_length"], document["imported"]["file"]) == ([64, 32], 16, "best.pth")
    assert load_model(tmp_path / "model").spec.image_size == (64, 32)
    assert read_model_metadata(tmp_path / "model")["selected"]["best_epoch"] == 0  # evaluate reads it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pth", "model", "weights.safetensors"]


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere.pth: no such file" in mistake("import-official", "nowhere.pth", "--out", tmp_path / "model")


def test_a_model_is_exported_and_says_which_it_was(model: Path, tmp_path: Path) -> None:
    document = answer("export", model, "--out", tmp_path / "onnx")
    assert document["model_fingerprint"] == model_fingerprint(model)
    assert document["files"].keys() == {"image_encoder.onnx", "text_encoder.onnx"}


def test_an_export_is_replaced_and_described_for_people(model: Path, tmp_path: Path) -> None:
    answer("export", model, "--out", tmp_path / "onnx")
    lines = irra("export", model, "--out", tmp_path / "onnx").stdout.splitlines()
    [mean] = [line for line in lines if line.startswith("image encoder normalisation inside mean ")]
    assert mean.endswith("  0.4815, 0.4578, 0.4082")


def test_info_describes_a_model(model: Path) -> None:
    document = answer("info", model)
    assert document["kind"] == "model"
    assert document["parameters"] == sum(parameter.numel() for parameter in load_model(model).parameters())
    assert document["fingerprint"] == model_fingerprint(model)
    assert document["selected"] == {"best_epoch": 3}


def test_info_says_what_the_parts_of_an_embedding_are(model: Path, tmp_path: Path) -> None:
    assert "embedding" not in answer("info", model)
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    metadata = json.loads((copy / "config.json").read_text())
    metadata["model"]["token_selection"] = 0.3
    write_record(copy / "config.json", metadata)
    expected = (
        "48 numbers: 16 global (CLS / END), 32 of the selected 30% of tokens, each of unit length, divided by sqrt 2; "
        "the cosine is the mean of both"
    )
    assert answer("info", copy)["embedding"] == expected
    assert expected in irra("info", copy).stdout


def test_info_verifies_a_model(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    assert answer("info", copy, "--verify")["verified_files"] == 1
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "weights.safetensors: damaged (its sha256" in mistake("info", copy, "--verify")


def test_info_verifies_prepared_data_and_tokens(store: PreparedStore, tokens: TokenStore) -> None:
    assert answer("info", store.root, "--verify")["verified_files"] == len(list(store.root.iterdir())) - 1
    assert answer("info", tokens.root, "--verify")["verified_files"] == 3


def test_info_for_people_is_a_line_for_every_value(model: Path) -> None:
    lines = [
        line.split("  ")[0] + ": " + line.split("  ")[-1].strip() for line in irra("info", model).stdout.splitlines()
    ]
    assert {"kind: model", "image size: 64 x 32", "selected best epoch: 3"} <= set(lines)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "neither a model folder (no config.json), an index (no info.json)"),
        ("config.json", "{", "config.json: damaged (Invalid JSON"),
        ("config.json", "[]", "config.json: damaged"),
        ("config.json", "{}", "not the configuration of a model"),
        ("weights.safetensors", None, "missing"),
        ("weights.safetensors", "damaged", "damaged weights"),
    ],
)
def test_a_damaged_model_is_named(model: Path, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    if content is not None:
        (tmp_path / "model" / name).write_text(content)
    assert message in mistake("info", tmp_path / "model")


def alone(work: Callable[[], dict]) -> Result:
    """Run `work` as the only command of a program."""
    program = Typer()
    program.command()(command(work))
    return CliRunner().invoke(program, ["--json"])


def test_standard_output_holds_the_answer_alone() -> None:
    def noisy() -> dict:
        print("a library says something")
        return {"name": "ü", "value": 1.5}

    done = alone(noisy)
    assert json.loads(done.stdout) == {"name": "ü", "value": 1.5}
    assert done.stderr == "a library says something\n"


def test_an_interrupt_keeps_the_shell_s_exit_status() -> None:
    def interrupted() -> dict:
        raise KeyboardInterrupt

    assert alone(interrupted).exit_code == 130


def test_our_own_bugs_keep_their_traceback() -> None:
    def broken() -> dict:
        raise AssertionError("a bug")

    assert isinstance(alone(broken).exception, AssertionError)


def test_a_mistake_ends_the_process_with_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "search", "a man", "--index", str(tmp_path / "nowhere")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}: no index")
    assert done.stderr.count("\n") == 1
