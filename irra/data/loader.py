"""Batches from the stores: training batches by epoch and step, evaluation batches in order."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irra.config import TrainConfig
from irra.data.augment import Choices, augment, draw_choices, normalise
from irra.data.masking import place_chosen
from irra.data.sampling import identity_batches, random_batches
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore, trimmed
from irra.distributed import ALONE, World
from irra.utils.errors import UserError

Batch = dict[str, Tensor]
PREFETCH = 2

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

    def batches(self, epoch: int, first_step: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batches of `epoch` from `first_step` (counted from 0) on, on `device`; a thread reads ahead."""
        remaining = list(enumerate(self.epoch(epoch)))[first_step:]
        for step, host in _read_ahead(remaining, lambda item: _pinned(self._read(item[1], epoch), device), PREFETCH):
            yield self._to_device(host, epoch, step, device)

    def _read(self, caption_ids: NDArray[np.int64], epoch: int) -> Batch:
        image_ids = self.store.caption_image_ids[caption_ids]
        rows, real = self._own_rows(len(caption_ids))
        batch = {
            "images": torch.from_numpy(self.store.pixels(image_ids[rows])),
            "caption_ids": torch.from_numpy(trimmed(self.tokens.caption_ids[caption_ids[rows]])),
            "pids": torch.from_numpy(self.store.image_labels[image_ids]),
            "image_ids": torch.from_numpy(image_ids),
        }
        if "mlm" in self.config.losses:
            batch |= self._read_masked(caption_ids, epoch, rows, real)
        return batch

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

    def _to_device(self, host: Batch, epoch: int, step: int, device: torch.device) -> Batch:
        batch = {name: value.to(device, non_blocking=True) for name, value in host.items()}
        pixels = batch["images"]
        if not self.config.img_aug:
            return batch | {"images": normalise(pixels)}
        generator = torch.Generator().manual_seed(_seed(self.config.seed, epoch, step))
        total = len(batch["pids"])
        rows = torch.from_numpy(self._own_rows(total)[0])
        choices = draw_choices(total, pixels.shape[1], pixels.shape[2], generator)
        choices = Choices(*(getattr(choices, field.name)[rows] for field in fields(Choices)))
        return batch | {"images": augment(pixels, choices)}


def image_batches(
    store: PreparedStore, image_ids: NDArray[np.int64], size: int, device: torch.device
) -> Iterator[Tensor]:
    """Yield normalised (B, 3, H, W) images in the order of `image_ids`, without augmentation."""
    chunks = [image_ids[start : start + size] for start in range(0, len(image_ids), size)]
    for _, pixels in _read_ahead(
        list(enumerate(chunks)), lambda item: torch.from_numpy(store.pixels(item[1])), PREFETCH
    ):
        yield normalise(pixels.to(device))


def caption_batches(
    tokens: TokenStore, caption_ids: NDArray[np.int64], size: int, device: torch.device
) -> Iterator[Tensor]:
    """Yield (B, L) token ids in the order of `caption_ids`, each batch trimmed to its longest caption."""
    for start in range(0, len(caption_ids), size):
        yield torch.from_numpy(trimmed(tokens.caption_ids[caption_ids[start : start + size]])).to(device)


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


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


Item = tuple[int, NDArray[np.int64]]


def _read_ahead(items: list[Item], read: Callable[[Item], T], depth: int) -> Iterator[tuple[int, T]]:
    """Yield (number, read(item)) in order, while a thread reads up to `depth` items ahead."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = [pool.submit(read, item) for item in items[:depth]]
        for position, item in enumerate(items):
            future = pending.pop(0)
            if position + depth < len(items):
                pending.append(pool.submit(read, items[position + depth]))
            yield item[0], future.result()
