"""A prepared dataset as MLflow shows it: where it is, and what is in it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.layout import project
from irra.data.store import PreparedStore

KUBEFLOW = re.compile("/(?:s3|minio)/(.+)")  # where a task finds an artifact that lies at s3://... or minio://...


@dataclass(frozen=True)
class TrackedDataset:
    """A dataset's name and fingerprint; the rest as MLflow's JSON, and the type of the source."""

    name: str
    fingerprint: str
    source_type: str
    source: str
    schema: str
    profile: str


def track_dataset(store: PreparedStore) -> TrackedDataset:
    """Describe a prepared store, which is what a model is trained on, so that `mlflow.data.get_source` finds it."""
    source_type, uri = find_source(store.root)
    sizes = {split: vars(size) for split, size in store.stats.splits.items()}
    facts = (json.dumps({"uri": uri}), schema_of(store), json.dumps(sizes))
    return TrackedDataset(store.dataset_name, store.fingerprint, source_type, *facts)


def find_source(folder: Path) -> tuple[str, str]:
    """Type and address of a folder; that of the project, and not of the temporary workspace of a DVC experiment."""
    path, here = folder.absolute(), Path.cwd()
    if artifact := KUBEFLOW.fullmatch(str(path)):
        return "s3", f"s3://{artifact[1]}"
    return "local", str(project() / path.relative_to(here) if path.is_relative_to(here) else path)


def schema_of(store: PreparedStore) -> str:
    """The arrays of a prepared store: pictures and captions, and whose they are."""
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.types.schema import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, *store.image_size, 3), "images")
    captions = TensorSpec(np.dtype(np.str_), (-1,), "captions")
    people = [TensorSpec(np.dtype(np.int64), (-1,), name) for name in ("image_pids", "caption_image_ids")]
    return json.dumps(TensorDatasetSchema(Schema([images, captions]), Schema(people)).to_dict())
