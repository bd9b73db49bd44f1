"""Batches from the stores: training batches by epoch and step, evaluation batches in order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irra.config import TrainConfig
from irra.data.augment import Normaliser, crop, draw_choices, to_planes
from irra.data.masking import place_chosen
from irra.data.sampling import identity_batches, random_batches
from irra.data.store import PreparedStore
from irra.data.tbps_augment import draw_transforms, transform
from irra.data.text_augment import eda, rde, word_ends
from irra.data.tokens import TokenStore, trimmed
from irra.distributed import ALONE, World
from irra.utils.errors import UserError

Batch = dict[str, Tensor]
PREFETCH = 2
TRANSFORMS = ("kinds", "values")  # of a batch that is read, where the CPU decides by them what its images undergo
TEXT, DROPOUT = 1, 2  # the random numbers of a step beside those of its images
DIVISION = 3  # the random numbers of what divides captions, beside those of steps

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class TrainingData:
    """Deterministic training batches, which depend only on seed, epoch and step, so training can resume anywhere.

    Processes that train together share each batch: each gets its rows of images and captions, and all labels.

    Raises:
        UserError: The tokens belong to other data, or lack the masking cache that `mlm` needs.
    """

    store: PreparedStore
    tokens: TokenStore
    config: TrainConfig
    world: World = ALONE

    def __post_init__(self) -> None:
        check_same_data(self.store, self.tokens)
        if "mlm" in self.config.losses and self.tokens.mask_draws == 0:
            raise UserError(f"{self.tokens.root}: no masking cache for mlm; set tokenize.mask_draws to 1 or more")

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Caption ids of every batch of `epoch` (from 1).

        Raises:
            UserError: There are too few identities for the identity sampler.
        """
        captions = self.store.caption_ids("train")
        rng = np.random.default_rng([self.config.seed, epoch])
        if self.config.sampler == "random":
            chosen = random_batches(len(captions), self.config.batch_size, rng)
        else:
            labels = self.store.image_labels[self.store.caption_image_ids[captions]]
            try:
                chosen = identity_batches(labels, self.config.batch_size, self.config.num_instance, rng)
            except ValueError as error:
                raise UserError(f"train.sampler identity: {error}") from None
        return [captions[rows] for rows in chosen]

    def for_division(self) -> "TrainingData":
        """The same captions for a pass that only measures losses: each once an epoch, in an order of its own.

        With `ccd: plain`, neither images nor captions are augmented.
        """
        config, rng = self.config, np.random.default_rng([self.config.seed, 0, 0, DIVISION])
        names = "+".join(name for name in config.losses if name != "mlm")
        changes = {"loss_names": names, "sampler": "random", "seed": int(rng.integers(1 << 31))}
        plain = {"img_aug": False, "txt_aug": "none"} if config.ccd == "plain" else {}
        return replace(self, config=config.model_copy(update=changes | plain))

    def batches(
        self, epoch: int, first_step: int, device: torch.device, clean: Tensor | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of `epoch` from `first_step` (counted from 0) on, on `device`; a thread reads ahead.

        A batch has also those of its captions from the labels `clean`, which are by caption id.
        """
        remaining = list(enumerate(self.epoch(epoch)))[first_step:]
        normaliser = Normaliser(device)

        def read(item: tuple[int, NDArray[np.int64]]) -> Batch:
            labels = {} if clean is None else {"clean": clean[item[1]]}
            return _pinned(self._read(item[1], epoch, item[0]) | labels, device)

        for host in _read_ahead(remaining, read, PREFETCH):
            yield _on_device(host, normaliser, device)

    def _read(self, caption_ids: NDArray[np.int64], epoch: int, step: int) -> Batch:
        image_ids = self.store.caption_image_ids[caption_ids]
        rows, real = self._own_rows(len(caption_ids))
        batch = {
            **self._images(image_ids, rows, epoch, step),
            "caption_ids": torch.from_numpy(trimmed(self._captions(caption_ids, epoch, step)[rows])),
            "pids": torch.from_numpy(self.store.image_labels[image_ids]),
            "image_ids": torch.from_numpy(image_ids),
        }
        if "mlm" in self.config.losses:
            batch |= self._read_masked(caption_ids, epoch, rows, real)
        return batch

    def _captions(self, caption_ids: NDArray[np.int64], epoch: int, step: int) -> NDArray[np.uint16]:
        """Token rows of a whole batch, changed at random if captions are augmented."""
        ids = self.tokens.caption_ids[caption_ids]
        if self.config.txt_aug == "none":
            return ids
        rng = np.random.default_rng([self.config.seed, epoch, step, TEXT])
        if self.config.txt_aug == "rde":
            return rde(ids, rng)
        return eda(ids, *self.tokens.twins(caption_ids), self._word_ends, rng)

    def _read_masked(
        self, caption_ids: NDArray[np.int64], epoch: int, rows: NDArray[np.int64], real: NDArray[np.bool_]
    ) -> Batch:
        # the cross-modal branch also attends to padding, so its rows keep their full length
        ids, labels = (part.astype(np.int64) for part in self.tokens.masked(caption_ids, epoch))
        own = labels[rows] * real[:, None]
        positions, slots = place_chosen(own != 0, self._most_masked)
        parts = {"mlm_ids": ids[rows], "mlm_labels": own, "mlm_positions": positions, "mlm_slots": slots}
        return {name: torch.from_numpy(part) for name, part in parts.items()} | {
            "mlm_total": torch.tensor(np.count_nonzero(labels))
        }

    def _own_rows(self, total: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The rows of a batch that this process takes, and which of them are no padding.

        All processes take equally many: the last ones repeat others' rows, since no model can encode nothing.
        """
        start, width = self.world.rank * self.world.width(total), self.world.width(total)
        rows = np.arange(start, start + width)
        return rows % total, rows < total

    @cached_property
    def _most_masked(self) -> int:
        return self.tokens.most_masked()

    @cached_property
    def _word_ends(self) -> NDArray[np.bool_]:
        return word_ends()

    def _images(self, image_ids: NDArray[np.int64], rows: NDArray[np.int64], epoch: int, step: int) -> Batch:
        """Planes of bytes of these rows of a batch, and what is left to do with them if images are augmented."""
        pixels = self.store.pixels(image_ids[rows])
        if not self.config.img_aug:
            return {"images": torch.from_numpy(to_planes(pixels))}
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, epoch, step))
        if self.config.img_transforms == "tbps-clip":
            drawn = draw_transforms(len(image_ids), *self.store.image_size, generator)[rows]
            return {"images": torch.from_numpy(to_planes(pixels)), "kinds": drawn.kinds, "values": drawn.values}
        choices = draw_choices(len(image_ids), *self.store.image_size, generator)[rows]
        return {"images": torch.from_numpy(crop(pixels, choices)), "erase": choices.erase}


def in_order(count: int, size: int) -> list[NDArray[np.int64]]:
    """The numbers from 0 to `count` - 1 in batches of up to `size`."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def image_batches(store: PreparedStore, batches: Sequence[NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
    """Yield the normalised images (B, 3, H, W) of each batch of image ids, without augmentation."""
    normaliser = Normaliser(device)
    for host in _read_ahead(batches, lambda ids: _pinned(_planes(store, ids), device), PREFETCH):
        yield _on_device(host, normaliser, device)["images"]


def _planes(store: PreparedStore, image_ids: NDArray[np.int64]) -> Batch:
    return {"images": torch.from_numpy(to_planes(store.pixels(image_ids)))}


def caption_batches(tokens: TokenStore, batches: Sequence[NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
    """Yield the token ids (B, L) of each batch of caption ids, trimmed to its longest caption."""
    for ids in batches:
        yield torch.from_numpy(trimmed(tokens.caption_ids[ids])).to(device)


def check_same_data(store: PreparedStore, tokens: TokenStore) -> None:
    """Check that `tokens` were made from the prepared dataset in `store`.

    Raises:
        UserError: They were made from another one.
    """
    if tokens.data_fingerprint != store.fingerprint:
        raise UserError(
            f"{tokens.root} was made from data {tokens.data_fingerprint[:12]}, but {store.root} holds "
            f"{store.fingerprint[:12]}; run the tokenize stage again"
        )


def _pinned(batch: Batch, device: torch.device) -> Batch:
    """The batch in page-locked memory, from which copies to a GPU do not block; unchanged for other devices."""
    return {name: value.pin_memory() for name, value in batch.items()} if device.type == "cuda" else batch


def _on_device(host: Batch, normaliser: Normaliser, device: torch.device) -> Batch:
    """The batch on `device`, with its images transformed or erased, and normalised."""
    batch = {name: value.to(device, non_blocking=True) for name, value in host.items() if name not in TRANSFORMS}
    erase = batch.pop("erase", None)
    if "kinds" in host:
        pixels = batch["images"].float().div_(255.0)
        return batch | {"images": normaliser.colours(transform(pixels, host["kinds"], host["values"]))}
    return batch | {"images": normaliser(batch["images"], erase)}


def seed_of(*parts: int) -> int:
    """A seed for torch that depends on all of the numbers; zeros at their end make no difference."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _read_ahead(items: Sequence[S], read: Callable[[S], T], depth: int) -> Iterator[T]:
    """Yield read(item) in order, while a thread reads up to `depth` items ahead."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = [pool.submit(read, item) for item in items[:depth]]
        for position in range(len(items)):
            future = pending.pop(0)
            if position + depth < len(items):
                pending.append(pool.submit(read, items[position + depth]))
            yield future.result()
