"""All of params.yaml, and the checks that concern several sections."""

from collections.abc import Sequence

from pydantic import Field, model_validator

from irra.backbones import read_patch_size
from irra.config.evaluate import EvaluateConfig
from irra.config.index import IndexConfig
from irra.config.prepare import PrepareConfig
from irra.config.registry import RegistryConfig
from irra.config.report import ReportConfig
from irra.config.section import ConfigSection
from irra.config.tokenize import TokenizeConfig
from irra.config.train import TrainConfig


class Params(ConfigSection):
    """All sections; the defaults are the recipe published for CUHK-PEDES."""

    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    tokenize: TokenizeConfig = Field(default_factory=TokenizeConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    index: IndexConfig = Field(default_factory=IndexConfig)
    registry: RegistryConfig = Field(default_factory=RegistryConfig)

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "Params":
        check_masking(self.train, self.tokenize)
        check_image_size(self.train.backbone, self.prepare.image_size)
        if self.train.sampler == "identity":
            self.prepare.check_identities(self.train.batch_size // self.train.num_instance)
        return self


def check_masking(train: TrainConfig, tokenize: TokenizeConfig) -> None:
    """Check that there is a masking cache if the model is trained with `mlm`.

    Raises:
        ValueError: There is none.
    """
    if "mlm" in train.losses and tokenize.mask_draws == 0:
        raise ValueError("train.loss_names has mlm, which needs masked tokens: set tokenize.mask_draws to 1 or more")


def check_image_size(backbone: str, image_size: Sequence[int]) -> None:
    """Check that both sides of `image_size` are multiples of the backbone's patch size.

    Raises:
        ValueError: They are not.
    """
    patch = read_patch_size(backbone)
    if any(side % patch for side in image_size):
        raise ValueError(
            f"prepare.image_size {list(image_size)} is not divisible by the patch size {patch} of {backbone}"
        )


def located(params: Params) -> EvaluateConfig:
    """The section evaluate, where the name of a dataset in `also` has become its place: below prepare.root_dir."""
    root = params.prepare.root_dir.rstrip("/")
    also = [entry if "/" in entry else f"{root}/{entry}" for entry in params.evaluate.also]
    return params.evaluate.model_copy(update={"also": also})
