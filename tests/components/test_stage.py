"""The stages' command line: messages and exit statuses that users see. Runs the cheapest stage for real."""

import errno
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import yaml
from PIL import Image

from components.stage import guarded
from irra.utils.errors import Interrupted, UserError
from tests.imports import ROOT
from tests.irra.test_locks import HOLD, running
from tests.presets import preset_text

SPLITS = {"a": "train", "b": "train", "c": "val", "d": "test"}  # of pictures, each of a different person


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "components.prepare", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def params_with(tmp_path: Path, old: str, new: str) -> str:
    text = preset_text("tiny")
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new))
    return str(tmp_path / "params.yaml")


def outputs_in(tmp_path: Path) -> list[str]:
    return ["--prepared", str(tmp_path / "prepared")]


def test_a_stage_writes_its_outputs(tmp_path: Path) -> None:
    done = prepare("--params", "presets/tiny.yaml", *outputs_in(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prepared" / "stats.json").is_file()


def test_of_two_stages_that_write_a_folder_the_second_is_refused(tmp_path: Path) -> None:
    with running(HOLD, tmp_path / "prepared") as process:
        done = prepare("--params", "presets/tiny.yaml", *outputs_in(tmp_path))
    assert done.returncode == 2
    assert f"error: {tmp_path / 'prepared'}: process {process.pid} since" in done.stderr
    assert not (tmp_path / "prepared").exists()


def test_progress_is_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = prepare("--params", "presets/tiny.yaml", *outputs_in(tmp_path))
    assert "prepare: 40/40 images in" in done.stderr
    assert "\r" not in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  lr: 1.0e-3", "  lrr: 1.0e-3", "train.lrr: unknown key; did you mean 'lr'?"),
        ("dataset_name: synthetic", "dataset_name: CUHK-PEDES", "belongs to dataset_name: synthetic"),
    ],
)
def test_a_mistake_in_any_section_stops_every_stage_with_one_message(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    done = prepare("--params", params_with(tmp_path, old, new), *outputs_in(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "prepared").exists()


def test_a_warning_is_one_plain_line(tmp_path: Path) -> None:
    imgs = tmp_path / "raw" / "mine" / "imgs"
    imgs.mkdir(parents=True)
    for name in SPLITS:
        Image.new("RGB", (20, 40)).save(imgs / f"{name}.png")
    (imgs / "b.png").write_bytes(b"broken")
    entries = [
        {"id": pid, "file_path": f"{name}.png", "captions": ["A man."], "split": split}
        for pid, (name, split) in enumerate(SPLITS.items())
    ]
    (tmp_path / "raw" / "mine" / "annotations.json").write_text(json.dumps(entries))
    text = yaml.safe_load(preset_text("tiny"))
    changes = {"dataset_name": "mine", "root_dir": str(tmp_path / "raw"), "on_bad_image": "skip", "synthetic": None}
    text["prepare"] |= changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(text))
    done = prepare("--params", str(tmp_path / "params.yaml"), *outputs_in(tmp_path))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "skipped" in line]
    assert line.startswith("warning: ")
    assert "b.png" in line


def test_missing_data_is_named_and_leaves_the_previous_output(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "stats.json").write_text("{}")
    text = preset_text("cuhk-pedes").replace("data/raw", str(tmp_path / "nowhere"))
    (tmp_path / "params.yaml").write_text(text)
    done = prepare("--params", str(tmp_path / "params.yaml"), *outputs_in(tmp_path))
    assert done.returncode == 2
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "prepared" / "stats.json").read_text() == "{}"


def test_help_names_every_path_and_its_default() -> None:
    shown = prepare("--help").stdout
    assert "--prepared" in shown
    assert "data/prepared" in shown


def fails_with(error: BaseException) -> int:
    def work() -> None:
        raise error

    return guarded(work)


def test_user_error_exits_2_with_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails_with(UserError("params.yaml: train.lr: missing")) == 2
    assert capsys.readouterr().err == "error: params.yaml: train.lr: missing\n"


def test_full_disk_exits_1_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails_with(OSError(errno.ENOSPC, "No space left on device", "model.tmp")) == 1
    assert capsys.readouterr().err.startswith("error: model.tmp: No space left on device")


def test_under_dvc_a_full_disk_does_not_promise_the_previous_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", "/project")
    fails_with(OSError(errno.ENOSPC, "No space left on device", "model"))
    assert "DVC had removed the previous output, `dvc checkout` may bring it back" in capsys.readouterr().err


def test_a_path_that_is_too_long_exits_2_with_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(Path("a woman in red " * 30).is_file) == 2
    assert capsys.readouterr().err == f"error: {'a woman in red ' * 4}...: File name too long\n"


def test_a_path_that_cannot_be_opened_exits_2_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert guarded((tmp_path / "loop" / "model").read_bytes) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/loop/model: Too many levels of symbolic links\n"


def test_a_stop_by_signal_keeps_the_shell_s_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fails_with(Interrupted(15, "stopped in epoch 3"))
    assert stopped.value.code == 143
    assert capsys.readouterr().err == "stopped in epoch 3\n"


def test_our_own_bugs_keep_their_traceback() -> None:
    with pytest.raises(AssertionError):
        fails_with(AssertionError("a bug"))


FULL_DISK = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
module, sys.argv = sys.argv[1], [sys.argv[1], *sys.argv[3:]]
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("stage", "limit"), [("prepare", 100_000), ("tokenize", 7_000)]
)  # shards; masks, larger than captions
def test_a_stage_says_that_the_disk_is_full_and_leaves_the_previous_output(
    tmp_path: Path, stage: str, limit: int
) -> None:
    assert prepare("--params", "presets/tiny.yaml", *outputs_in(tmp_path)).returncode == 0
    before = (tmp_path / "prepared" / "shard-00000.npy").read_bytes()
    target = tmp_path / ("prepared" if stage == "prepare" else "tokens")
    command = [sys.executable, "-c", FULL_DISK, f"components.{stage}", str(limit), "--params", "presets/tiny.yaml"]
    command += [*outputs_in(tmp_path), *(["--tokens", str(target)] if stage == "tokenize" else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"error: {target}: {os.strerror(errno.EFBIG)}; nothing half-written was left; an output" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "prepared" / "shard-00000.npy").read_bytes() == before


def test_what_the_locale_cannot_show_ends_no_run() -> None:
    script = "from components.stage import guarded; raise SystemExit(guarded(lambda: print('a \u2192 b')))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a \\u2192 b\n"), done.stderr


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


@pytest.mark.parametrize("excepted", ["", "example.org"])
def test_a_server_on_this_machine_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch, excepted: str) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, excepted)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Greeting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=5)
        assert guarded(lambda: requests.get(address, timeout=5).raise_for_status()) == 0
        server.shutdown()
    assert os.environ["no_proxy"].startswith(excepted)
