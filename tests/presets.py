"""The presets as complete parameter files."""

from irra.config.presets import render_file
from tests.imports import ROOT

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


def preset_text(name: str) -> str:
    """Return what `make preset` writes to params.yaml."""
    return render_file(ROOT / "presets" / f"{name}.yaml")
