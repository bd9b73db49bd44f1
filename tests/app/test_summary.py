"""The table at the end of `make repro`."""

from pathlib import Path

import pytest

from app.summary import show
from irra.metrics import METRIC_NAMES
from irra.utils.errors import UserError
from irra.utils.records import write_record


def test_every_metric_of_every_split_and_direction_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "reports" / "evaluate"
    folder.mkdir(parents=True)
    values = iter(range(10, 99))
    metrics = {
        split: {way: {name: next(values) + 0.25 for name in METRIC_NAMES} for way in ("t2i", "i2t")}
        for split in ("val", "test")
    }
    intervals = {s: {w: {name: [75.0, 100.0] for name in METRIC_NAMES} for w in ways} for s, ways in metrics.items()}
    write_record(folder / "results.json", {"model": {}, "metrics": metrics, "intervals": intervals})
    show()
    shown = capsys.readouterr().out
    assert all(f"{10 + i}.25" in shown for i in range(20))
    assert shown.count("75.0–100.0") == 20


def test_without_results_the_next_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"results\.json: missing; evaluate the model first \(dvc repro evaluate\)"):
        show()
