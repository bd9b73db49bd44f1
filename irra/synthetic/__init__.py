"""A dataset of rendered pedestrians with captions, for where no photographs may be had."""

from irra.synthetic.dataset import write_dataset

__all__ = ["write_dataset"]
