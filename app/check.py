"""Say what is wrong with params.yaml or the dataset's folder before DVC does, which names neither key nor cure.

python -m app.check              # as `make repro` does first
"""

from pathlib import Path

from components.layout import PARAMS
from components.s3.client import is_remote
from components.stage import guarded
from irra.config import load_params
from irra.config.reader import missing_sections
from irra.data.datasets import find_annotations
from irra.utils.errors import UserError


def check(path: Path) -> None:
    """UserError for a mistake in the parameter file, a dataset without annotations or images, or unusable weights."""
    params = load_params(path)
    config = params.prepare
    if missing := missing_sections(path):
        raise UserError(f"{path}: no section {', '.join(missing)}; `make params` writes it, with its defaults")
    if config.source and not is_remote(config.root_dir):
        find_annotations(Path(config.source), config.dataset_name)
    if params.train.pretrained and Path(params.train.pretrained).is_file():
        from irra.model.clip import find_weights  # takes seconds, which a tag of weights does not need

        find_weights(params.train.backbone, params.train.pretrained)


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: check(PARAMS)))
