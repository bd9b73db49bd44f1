"""A dataset of rendered pedestrians with captions, for where no photographs may be had."""

from irra.data.synthetic.dataset import write_dataset

__all__ = ["write_dataset"]
