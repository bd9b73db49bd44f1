"""Confident consensus division (CCD of RDE, CVPR 2024): before an epoch, the captions that fit their images badly are
told from the others by the losses of all pairs, and dropped from the loss for that epoch.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irra.config import TrainConfig
from irra.data.loader import DIVISION, TrainingData
from irra.model import IRRA
from irra.objective import pair_losses
from irra.utils.device import autocast, matrix_products
from irra.utils.progress import progress

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

# Of the mixtures: loose as the released code for noise rates up to 0.4, tight above, and for RSTPReid.
FITS = {
    "loose": {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4},
    "tight": {"max_iter": 100, "tol": 1e-4, "reg_covar": 1e-6},
}
LIKELY = 0.5
ALWAYS_DROPPED = 100  # one pair of so many, where the mixture takes all of them for clean


def divide(losses: Floats, fit: str, seed: Sequence[int]) -> Flags:
    """Which of n pairs are kept: those clean by all kinds of features, and by a fair coin those clean by some.

    Args:
        losses: (V, n) float32, finite, by each of V kinds of features.
        fit: A key of FITS.
        seed: Of the coins, in ascending order of the pairs, and of the mixtures' first clusters.
    """
    assert np.isfinite(losses).all(), "a loss is not finite"
    rng = np.random.default_rng(seed)
    first_clusters = int(rng.integers(1 << 31))
    clean = np.stack([are_clean(each, fit, first_clusters) for each in losses])
    kept = np.asarray(clean.all(axis=0))
    split = clean.any(axis=0) & ~kept
    kept[split] = rng.integers(0, 2, np.count_nonzero(split)) == 1
    return kept


def are_clean(losses: Floats, fit: str, seed: int) -> Flags:
    """Which of n pairs are clean by losses (n,) of one kind; all of them if the losses are equal."""
    if losses.min() == losses.max():
        return np.ones(len(losses), dtype=np.bool_)
    return likely(clean_probability(scaled(losses), fit, seed))


def scaled(losses: Floats) -> Floats:
    """Losses (n,) moved to the range from 0 to 1, in their own precision; equal ones to 0."""
    lowest, highest = losses.min(), losses.max()
    return np.asarray((losses - lowest) / (highest - lowest if highest > lowest else 1))


def clean_probability(losses: Floats, fit: str, seed: int) -> Floats:
    """How likely each of n scaled losses (n,), not all equal, belongs to the lower of two normal distributions."""
    from sklearn.exceptions import ConvergenceWarning  # here, because the import takes seconds
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(2, random_state=seed, **FITS[fit])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a loose fit stops early on purpose
        mixture.fit(losses[:, None])
    probability: Floats = mixture.predict_proba(losses[:, None])[:, mixture.means_.argmin()]
    return probability


def likely(probability: Floats) -> Flags:
    """Which pairs are clean by their probabilities (n,): those above 0.5, or if all are, above that of the first 1%."""
    threshold = LIKELY
    if probability.min() > LIKELY:
        threshold = np.sort(probability)[len(probability) // ALWAYS_DROPPED]
    return np.asarray(probability > threshold)


class DroppedCaption(NamedTuple):
    """A caption with the path of its image, in how many of the divided epochs it was dropped, and if it is wrong.

    `wrong` is 0 or 1, or None where the data do not know it.
    """

    caption_id: int
    image: str
    caption: str
    dropped: int
    divided: int
    wrong: int | None


class Division:
    """Which captions an epoch of a training drops, and how often each was dropped until then.

    The processes that share `data` measure the losses together, and the first one decides.

    Attributes:
        tensors: What a state has to save: `epoch` (), the last one that was divided; by caption id `clean` (n,)
            float32, 0 for those dropped in it, `dropped` (n,) int32, in how many epochs they were, and `misfit` (n,)
            float32, the sum of their scaled losses. Empty before the first division.
    """

    def __init__(
        self, model: IRRA, data: TrainingData, config: TrainConfig, device: torch.device, tensors: dict[str, Tensor]
    ) -> None:
        self.tensors = tensors
        self._model = model
        self._data = data
        self._config = config
        self._device = device
        self._ids = data.store.caption_ids("train")

    def covers(self, epoch: int) -> bool:
        """Whether `epoch` drops captions."""
        return self._config.ccd != "none" and epoch >= self._config.ccd_start

    def is_due(self, epoch: int) -> bool:
        """Whether the captions have yet to be divided for `epoch`."""
        return self.covers(epoch) and not (self.tensors and self.tensors["epoch"] == epoch)

    def clean(self, epoch: int) -> Tensor | None:
        """(n,) by caption id: 0 for those dropped in `epoch`, 1 for others; None if it drops none."""
        return self.tensors["clean"] if self.covers(epoch) else None

    def measure(self, epoch: int) -> Floats:
        """Losses (V, N) of the N training captions before `epoch`, by each of V kinds of features; in ascending order.

        As in training, a loss depends on which pairs share its batch; few pairs in the last one look cleaner than they
        are, as in the released code. Encoders are not compiled for this pass, whose shapes differ from those of steps.
        """
        data, precision = self._data.for_division(), self._config.precision
        ids = data.epoch(epoch)
        self._model.eval()
        found = []
        batches = progress(data.batches(epoch, 0, self._device), "divide captions", len(ids), "steps")
        with torch.no_grad(), self._model.uncompiled(), matrix_products(precision), autocast(self._device, precision):
            for batch in batches:
                found.append(torch.stack(pair_losses(self._model, batch, self._config, data.world)))
        losses: Floats = torch.cat(found, dim=1).cpu().numpy()
        return losses[:, np.concatenate(ids).argsort()]

    def decide(self, epoch: int, losses: Floats) -> None:
        """Divide the captions for `epoch` by `losses` as measured."""
        world, config = self._data.world, self._config
        seed = (config.seed, epoch, 0, DIVISION)
        kept = torch.from_numpy(world.share(divide(losses, config.ccd_fit, seed) if world.first else None))
        misfit = torch.from_numpy(np.mean([scaled(each) for each in losses], axis=0))
        count, ids = len(self._data.store.captions), torch.from_numpy(self._ids)
        clean = torch.ones(count).index_put_((ids,), kept.float())
        before = self.tensors or {"dropped": torch.zeros(count, dtype=torch.int32), "misfit": torch.zeros(count)}
        self.tensors |= {
            "epoch": torch.tensor(epoch),
            "clean": clean,
            "dropped": before["dropped"] + (clean == 0),
            "misfit": before["misfit"].index_add(0, ids, misfit.float()),
        }

    def scores(self, epoch: int) -> dict[str, float]:
        """Share of the training captions kept in `epoch`; where it is known which are wrong, how well those were found.

        Precision is that of the dropped ones, recall that of the wrong ones; each is left out where there are none.
        """
        clean = self.clean(epoch)
        if clean is None:
            return {}
        dropped = clean.numpy()[self._ids] == 0
        values = {"ccd/kept": 1.0 - float(dropped.mean())}
        if (wrong := self._data.store.wrong_captions) is not None:
            found = int(np.count_nonzero(dropped & wrong[self._ids]))
            totals = {"ccd/precision": dropped.sum(), "ccd/recall": wrong[self._ids].sum()}
            values |= {name: found / int(total) for name, total in totals.items() if total}
        return values

    def most_dropped(self, count: int) -> list[DroppedCaption]:
        """Up to `count` captions that were dropped, most often first; of equals, those that fitted worst."""
        if not self.tensors:
            return []
        dropped, misfit = self.tensors["dropped"].numpy(), self.tensors["misfit"].numpy()
        order = np.lexsort((-misfit, -dropped))[:count]
        store, wrong = self._data.store, self._data.store.wrong_captions
        divided = int(self.tensors["epoch"]) - self._config.ccd_start + 1
        return [
            DroppedCaption(
                caption,
                store.image_paths[store.caption_image_ids[caption]],
                store.captions[caption],
                int(dropped[caption]),
                divided,
                None if wrong is None else int(wrong[caption]),
            )
            for caption in order[dropped[order] > 0].tolist()
        ]
