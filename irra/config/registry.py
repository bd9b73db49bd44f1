"""The section `registry` of params.yaml."""

from typing import Annotated

from pydantic import Field

from irra.config.section import ConfigSection, Name, param

Metric = Annotated[str, Field(pattern=r"^(val|test)/(t2i|i2t)/(R1|R5|R10|mAP|mINP)$")]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]


class RegistryConfig(ConfigSection):
    """When a model becomes the champion in MLflow's registry."""

    model_name: Name = param("irra", "in MLflow's registry; one name per dataset")
    metric: Metric = param("val/t2i/R1", "the champion is the model that is best at this")
    threshold: Percent = param(50.0, "in percent; no model below it is registered")
