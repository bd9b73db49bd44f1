"""The names and descriptions by which people tell runs and versions apart on Kubeflow's page."""

from collections.abc import Sequence
from datetime import datetime

from irra.config import Params


def run_name(params: Params, time: datetime, losses: Sequence[str] = ()) -> str:
    """Name a run by what it trains, and when it was submitted; `losses` are those of an ablation."""
    what = "ablation" if losses else f"{params.train.loss_names} seed {params.train.seed}"
    return f"{params.prepare.dataset_name} {what} {time:%Y-%m-%d %H:%M:%S}"


def description(
    params: Params, image: str | None, changes: Sequence[str], losses: Sequence[str] = (), seeds: Sequence[int] = ()
) -> str:
    """Describe a run in a line: data, losses, epochs, seed, image, and what was changed by `--set`."""
    trained = [params.train.loss_names, f"seed {params.train.seed}"]
    if losses:
        trained = [f"losses {' '.join(losses)}", f"seeds {' '.join(map(str, seeds))}"]
    facts = [params.prepare.dataset_name, *trained, params.train.backbone, f"{params.train.num_epoch} epochs"]
    return ", ".join([*facts, *([f"image {image}"] if image else []), *changes])
