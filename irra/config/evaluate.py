"""The section `evaluate` of params.yaml."""

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator

from irra.config.section import ConfigSection, Count, Device, Fraction, Name, Precision, Seed, param

Samples = Annotated[int, Field(ge=100)]
FewSentences = Annotated[int, Field(ge=1, le=100)]
METRIC_NAME = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]")  # what MLflow takes for a part of a metric's name


class EvaluateConfig(ConfigSection):
    """How the best model is measured."""

    test_batch_size: Count = param(512, "images or captions encoded at once")
    precision: Precision = param("fp16", "of the forward pass; features are fp32")
    device: Device = param("auto", "auto: the first of the others that is available")
    bootstrap_samples: Samples = param(1000, "bootstrap samples for the confidence intervals")
    top_k: Count = param(10, "ranks kept per query")
    also: list[Name] = param([], "other test sets: names of datasets in prepare.root_dir, or folders, raw or prepared")
    sentences: FewSentences = param(1, "above 1: measure queries of so many captions of an image, too")
    gallery_captions: Fraction = param(0.0, "above 0: measure a gallery with captions, too; their weight in a score")
    seed: Seed = param(0, "of the resampling")

    @property
    def with_captions(self) -> str:
        """What captions add to queries and gallery in a second measurement; "" if there is none."""
        parts = [f"{self.sentences} sentences a query"] if self.sentences > 1 else []
        if self.gallery_captions:
            parts.append(f"captions of the gallery weigh {self.gallery_captions:g}")
        return ", ".join(parts)

    @field_validator("also")
    @classmethod
    def _names_differ(cls, also: list[str]) -> list[str]:
        counts = Counter(name_of(entry) for entry in also)
        for name, count in counts.items():
            if not METRIC_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r}: metrics are named after the dataset, so use letters, digits, _, - and . in its name"
                )
            if count > 1:
                raise ValueError(
                    f"{count} datasets are called {name}; metrics are named after them, so rename a folder"
                )
        return also


def name_of(entry: str) -> str:
    """The name of a dataset in `evaluate.also`: the last part of its address."""
    return PurePosixPath(entry).name
