"""`make mlflow` on a port that is taken, where MLflow's server itself ends as if all were well."""

import socket
import subprocess
import sys

import pytest

from tests.imports import ROOT
from tests.projects import BIN
from tools.check_port import main


def status(monkeypatch: pytest.MonkeyPatch, port: object) -> int:
    monkeypatch.setattr(sys, "argv", ["check_port.py", str(port)])
    return main()


def test_a_free_port_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert status(monkeypatch, port) == 0


@pytest.mark.parametrize("port", ["http", "70000"])
def test_what_is_no_port_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    assert status(monkeypatch, port) == 2
    assert capsys.readouterr().err.startswith(f"PORT={port}: ")


def test_make_mlflow_fails_on_a_taken_port_and_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = ["make", "--old-file=setup", "mlflow", f"PORT={port}", f"BIN={BIN}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"PORT={port}: " in done.stderr
    assert "give another one: make mlflow PORT=5001" in done.stderr
