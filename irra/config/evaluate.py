"""The section `evaluate` of params.yaml."""

from typing import Annotated

from pydantic import Field

from irra.config.section import ConfigSection, Count, Device, Precision, Seed, param

Samples = Annotated[int, Field(ge=100)]


class EvaluateConfig(ConfigSection):
    """How the best model is measured."""

    test_batch_size: Count = param(512, "images or captions encoded at once")
    precision: Precision = param("fp16", "of the forward pass; features are fp32")
    device: Device = param("auto", "auto: the first of the others that is available")
    bootstrap_samples: Samples = param(1000, "bootstrap samples for the confidence intervals")
    top_k: Count = param(10, "ranks kept per query")
    seed: Seed = param(0, "of the resampling")
