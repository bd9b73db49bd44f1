"""A dataset of rendered pedestrians with captions, for use where no photographs are available."""

from irra.synthetic.dataset import write_dataset

__all__ = ["write_dataset"]
