"""Refuse data that lack a split which a later stage needs, before hours are spent on training.

On Kubeflow, this is a task of its own: as inputs of `train`, the sections of later stages would train again whenever
they change.
"""

from pathlib import Path

from irra.config import IndexConfig, RegistryConfig, TrainConfig
from irra.data.splits import check_store, needed_splits
from irra.data.store import PreparedStore


def run(prepared: Path, train: TrainConfig, index: IndexConfig, registry: RegistryConfig) -> None:
    """Check that the data have the splits on which a model will be selected, searched and judged.

    Raises:
        UserError: They have not; the message names the key and the splits that are there.
    """
    check_store(PreparedStore.open(prepared), needed_splits(train, index, registry))
