"""Calls of the command line `irra` in this process, and the data that its tests search."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from app.cli import app
from irra.checkpoint import save_model, save_weights
from irra.data.store import PreparedStore
from tests.models import small_model


def irra(*arguments: object, stdin: str | bytes | None = None) -> Result:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def answer(*arguments: object, stdin: str | bytes | None = None) -> dict:
    """Run a command with `--json`, which must succeed, and return its answer."""
    done = irra(*arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def mistake(*arguments: object, stdin: str | bytes | None = None) -> str:
    """Run a command with a mistake, and return its message: one line, and nothing on standard output."""
    done = irra(*arguments, stdin=stdin)
    assert done.exit_code == 2, done.stdout
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def write_model(folder: Path, seed: int = 0) -> Path:
    model = small_model(seed)
    save_weights(model, folder / "weights.safetensors")
    save_model(folder / "model", folder / "weights.safetensors", model.spec, {"selected": {"best_epoch": 3}})
    return folder / "model"


def write_photos(folder: Path, store: PreparedStore, count: int = 8) -> Path:
    folder.mkdir()
    for image_id, pixels in enumerate(store.pixels(np.arange(count))):
        Image.fromarray(pixels).save(folder / f"{image_id}.png")
    return folder
