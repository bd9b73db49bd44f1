"""The section `prepare` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from irra.config.section import ConfigSection, Count, Name, Seed, Share, param

SYNTHETIC = "synthetic"
Side = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]
FewCount = Annotated[int, Field(ge=1, le=1000)]  # of one person or one picture


class SyntheticConfig(ConfigSection):
    """The numbers of people, images and captions in the synthetic dataset."""

    train_ids: Count = param(1200, "people to train on")
    val_ids: Count = param(100, "people to select the best epoch on")
    test_ids: Count = param(100, "people to test on")
    images_per_id: FewCount = param(4, "pictures of each person")
    captions_per_image: FewCount = param(2, "sentences about each picture")
    wrong_captions: Share = param(0.1, "share of training captions that describe somebody else, as in real data")
    seed: Seed = param(0, "of people, pictures and captions")


class PrepareConfig(ConfigSection):
    """Which dataset is read, and at which size its images are stored."""

    dataset_name: Name = param("CUHK-PEDES", "a public one by its name in docs/data.md, synthetic or your own")
    root_dir: Name = param("data/raw", "holds the folder <dataset_name>; a path, or in S3: s3://bucket/folder")
    image_size: Size = param([384, 128], "height, width")
    on_bad_image: Literal["error", "skip"] = param("error", "skip: leave out and list")
    val_share: Share = param(0.0, "share of training identities held out if a dataset has no val split")
    synthetic: SyntheticConfig | None = None

    @property
    def source(self) -> str | None:
        """Location of the raw dataset, a folder or an S3 address; None for the synthetic one, which is rendered."""
        return None if self.synthetic else f"{self.root_dir.rstrip('/')}/{self.dataset_name}"

    def check_identities(self, needed: int) -> None:
        """Check that the dataset has `needed` training identities, as far as this is known without reading it.

        Raises:
            ValueError: It has fewer.
        """
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
