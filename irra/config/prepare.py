"""The section `prepare` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from irra.config.section import ConfigSection, Count, Name, Seed, Share, param

SYNTHETIC = "synthetic"
Size = Annotated[list[Count], Field(min_length=2, max_length=2)]


class SyntheticConfig(ConfigSection):
    """How many people, pictures and captions the synthetic dataset has."""

    train_ids: Count = param(1200, "people to train on")
    val_ids: Count = param(100, "people to choose the best epoch by")
    test_ids: Count = param(100, "people to measure on")
    images_per_id: Count = param(4, "pictures of every person")
    captions_per_image: Count = param(2, "sentences about every picture")
    wrong_captions: Share = param(0.1, "of the training captions: they describe somebody else, as in real datasets")
    seed: Seed = param(0, "of people, pictures and captions")


class PrepareConfig(ConfigSection):
    """Which dataset is read, and the size at which its images are stored."""

    dataset_name: Name = param("CUHK-PEDES", "CUHK-PEDES, ICFG-PEDES, RSTPReid, synthetic or your own")
    root_dir: Name = param("data/raw", "holds the folder <dataset_name>; here, or in S3: s3://bucket/folder")
    image_size: Size = param([384, 128], "height, width")
    on_bad_image: Literal["error", "skip"] = param("error", "skip: leave out and list")
    val_share: Share = param(0.0, "of the training identities, held out where a dataset has no val split")
    synthetic: SyntheticConfig | None = None

    @property
    def source(self) -> str | None:
        """Where the raw dataset lies, a folder or an address in S3; None for one that is rendered when it is read."""
        return None if self.synthetic else f"{self.root_dir.rstrip('/')}/{self.dataset_name}"

    def check_identities(self, needed: int) -> None:
        """Raise ValueError where it is clear without the data that it has fewer than `needed` training identities."""
        if self.synthetic and self.synthetic.train_ids < needed:
            raise ValueError(
                f"prepare.synthetic.train_ids {self.synthetic.train_ids} is fewer than the {needed} identities "
                "of a batch (train.batch_size / train.num_instance)"
            )

    @model_validator(mode="after")
    def _synthetic_has_its_section(self) -> "PrepareConfig":
        if (self.dataset_name == SYNTHETIC) != (self.synthetic is not None):
            raise ValueError(f"the section `synthetic` belongs to dataset_name: {SYNTHETIC} and to no other")
        return self
