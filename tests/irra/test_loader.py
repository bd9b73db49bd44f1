"""Batches are a function of seed, epoch and step."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from irra.config import TrainConfig
from irra.data.augment import CLIP_MEAN, CLIP_STD, Normaliser, crop, draw_choices, normalise
from irra.data.loader import TrainingData, caption_batches, image_batches, in_order, seed_of
from irra.data.masking import END_ID, MASK_ID
from irra.data.store import PreparedStore
from irra.data.tbps_augment import draw_transforms, transform
from irra.data.text_augment import rde
from irra.data.tokens import TokenStore, by_length, trimmed
from irra.distributed import World
from irra.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def data(store: PreparedStore, tokens: TokenStore, train_config: TrainConfig) -> TrainingData:
    return TrainingData(store, tokens, train_config)


def test_a_batch_has_the_promised_keys_and_shapes(data: TrainingData) -> None:
    batch = next(data.batches(1, 0, CPU))
    masked = {"mlm_ids", "mlm_labels", "mlm_positions", "mlm_slots", "mlm_total"}
    assert set(batch) == {"images", "caption_ids", "pids", "image_ids"} | masked
    assert batch["images"].shape == (8, 3, 64, 32)
    assert batch["mlm_ids"].shape == batch["mlm_labels"].shape == (8, 16)


def test_captions_end_with_the_longest_of_the_batch(data: TrainingData) -> None:
    for batch in data.batches(1, 0, CPU):
        lengths = (batch["caption_ids"] == END_ID).nonzero()[:, 1] + 1
        assert len(lengths) == len(batch["caption_ids"])
        assert lengths.max() == batch["caption_ids"].shape[1]


def test_images_captions_and_labels_belong_together(data: TrainingData, store: PreparedStore) -> None:
    for ids, batch in zip(data.epoch(2), data.batches(2, 0, CPU), strict=True):
        assert batch["image_ids"].tolist() == store.caption_image_ids[ids].tolist()
        assert batch["pids"].tolist() == store.image_labels[batch["image_ids"]].tolist()
        width = batch["caption_ids"].shape[1]
        np.testing.assert_array_equal(batch["caption_ids"], data.tokens.caption_ids[ids][:, :width])


def test_masked_words_are_where_the_batch_says_and_its_shapes_never_change(data: TrainingData) -> None:
    shapes = set()
    for epoch in (1, 2):
        for batch in data.batches(epoch, 0, CPU):
            labels, positions = batch["mlm_labels"], batch["mlm_positions"]
            shapes.add(positions.shape)
            found = labels.gather(1, positions).flatten()[batch["mlm_slots"]]
            assert found.tolist() == labels[labels != 0].tolist()
            assert batch["mlm_total"].item() == len(found)
    assert len(shapes) == 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_divide_the_rows_of_a_batch_and_know_all_labels(data: TrainingData, size: int) -> None:
    whole = next(data.batches(1, 0, CPU))
    parts = [next(replace(data, world=World(rank, size)).batches(1, 0, CPU)) for rank in range(size)]
    for name in ("images", "mlm_ids"):
        rows = [part[name][: len(range(8)[World(rank, size).rows(8)])] for rank, part in enumerate(parts)]
        assert torch.equal(torch.cat(rows), whole[name])
        assert len({len(part[name]) for part in parts}) == 1, "each has equally many rows"
    for part in parts:
        assert torch.equal(part["pids"], whole["pids"])
        assert part["mlm_total"] == whole["mlm_total"]
    assert sum(len(part["mlm_slots"]) for part in parts) == len(whole["mlm_slots"])


def test_an_epoch_from_the_middle_equals_the_rest_of_a_whole_one(data: TrainingData) -> None:
    whole = list(data.batches(2, 0, CPU))
    rest = list(data.batches(2, 3, CPU))
    assert len(rest) == len(whole) - 3
    for expected, batch in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(expected[key], batch[key]) for key in expected)


def test_epochs_differ_in_order_and_augmentation(data: TrainingData) -> None:
    first, second = (next(data.batches(epoch, 0, CPU)) for epoch in (1, 2))
    assert not torch.equal(first["image_ids"], second["image_ids"])


def test_images_are_augmented_by_the_choices_of_their_epoch_and_step(data: TrainingData, store: PreparedStore) -> None:
    step, batch = 2, list(data.batches(3, 0, CPU))[2]
    seeds = np.random.SeedSequence((data.config.seed, 3, step)).generate_state(1, np.uint64)
    choices = draw_choices(8, *store.image_size, torch.Generator().manual_seed(int(seeds[0]) // 2))
    planes = torch.from_numpy(crop(store.pixels(batch["image_ids"].numpy()), choices))
    assert torch.equal(batch["images"], Normaliser(CPU)(planes, choices.erase))


def test_without_augmentation_images_are_only_normalised(data: TrainingData, store: PreparedStore) -> None:
    plain = TrainingData(store, data.tokens, data.config.model_copy(update={"img_aug": False}))
    batch = next(plain.batches(1, 0, CPU))
    expected = normalise(torch.from_numpy(store.pixels(batch["image_ids"].numpy())))
    assert torch.equal(batch["images"], expected)


@pytest.fixture
def varied(data: TrainingData) -> TrainingData:
    """The data with altered captions and with images that undergo two of six transforms."""
    changes = {"txt_aug": "rde", "mask_global_text": False, "img_transforms": "tbps-clip"}
    return replace(data, config=data.config.model_copy(update=changes))


def test_captions_are_altered_by_the_draws_of_their_epoch_and_step(varied: TrainingData, data: TrainingData) -> None:
    changed = 0
    for step, (ids, batch) in enumerate(zip(varied.epoch(2), varied.batches(2, 0, CPU), strict=True)):
        expected = rde(data.tokens.caption_ids[ids], np.random.default_rng([varied.config.seed, 2, step, 1]))
        np.testing.assert_array_equal(batch["caption_ids"], trimmed(expected))
        changed += (expected != data.tokens.caption_ids[ids]).any(axis=1).sum()
    assert changed > 12


def test_altered_captions_leave_what_mlm_predicts_as_it_is(varied: TrainingData, data: TrainingData) -> None:
    for plain, batch in zip(data.batches(1, 0, CPU), varied.batches(1, 0, CPU), strict=True):
        assert all(torch.equal(batch[name], plain[name]) for name in plain if name.startswith("mlm"))


def test_back_translated_captions_take_the_place_of_some(data: TrainingData) -> None:
    class Twins(TokenStore):
        """Tokens in which each caption has a twin, which has mask tokens in place of words."""

        def twins(self, caption_ids: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
            ids = self.caption_ids[caption_ids]
            return np.where((ids > 0) & (ids < MASK_ID), np.uint16(MASK_ID), ids), np.ones(len(ids), bool)

    tokens = Twins(*(getattr(data.tokens, field.name) for field in fields(TokenStore)))
    config = data.config.model_copy(update={"txt_aug": "eda", "loss_names": "itc"})
    batches = [
        batch for epoch in range(1, 6) for batch in replace(data, tokens=tokens, config=config).batches(epoch, 0, CPU)
    ]
    masked = [(row == MASK_ID).any().item() for batch in batches for row in batch["caption_ids"]]
    assert 10 <= sum(masked) <= 40  # of 240


def test_transformed_images_are_those_of_their_epoch_and_step(varied: TrainingData, store: PreparedStore) -> None:
    step, batch = 2, list(varied.batches(3, 0, CPU))[2]
    drawn = draw_transforms(8, *store.image_size, torch.Generator().manual_seed(seed_of(varied.config.seed, 3, step)))
    pixels = torch.from_numpy(store.pixels(batch["image_ids"].numpy())).permute(0, 3, 1, 2) / 255.0
    expected = transform(pixels.contiguous(), drawn.kinds, drawn.values)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(batch["images"], (expected - mean) / std)
    assert not {"kinds", "values"} & set(batch)


def test_varied_batches_can_be_divided_and_resumed(varied: TrainingData) -> None:
    whole = list(varied.batches(2, 0, CPU))
    (rest,) = varied.batches(2, 5, CPU)
    assert all(torch.equal(rest[key], whole[5][key]) for key in rest)
    for rank in (0, 1):
        part = next(replace(varied, world=World(rank, 2)).batches(2, 0, CPU))
        rows = World(rank, 2).rows(8)
        assert torch.equal(part["images"], whole[0]["images"][rows])
        width = min(part["caption_ids"].shape[1], whole[0]["caption_ids"].shape[1])
        assert torch.equal(part["caption_ids"][:, :width], whole[0]["caption_ids"][rows, :width])


def test_evaluation_batches_hold_the_images_and_captions_asked_for(store: PreparedStore, tokens: TokenStore) -> None:
    image_ids, caption_ids = store.image_ids("test"), store.caption_ids("test")
    images = torch.cat(list(image_batches(store, [image_ids[rows] for rows in in_order(len(image_ids), 3)], CPU)))
    assert torch.equal(images, normalise(torch.from_numpy(store.pixels(image_ids))))
    batches = [caption_ids[rows] for rows in by_length(tokens.caption_ids[caption_ids], 3)]
    for rows, ids in zip(batches, caption_batches(tokens, batches, CPU), strict=True):
        np.testing.assert_array_equal(ids, tokens.caption_ids[rows][:, : ids.shape[1]])
        assert (ids[:, -1] == END_ID).any()


def test_tokens_of_other_data_are_refused(store: PreparedStore, tokens: TokenStore, train_config: TrainConfig) -> None:
    import dataclasses

    other = dataclasses.replace(tokens, data_fingerprint="0" * 64)
    with pytest.raises(UserError, match="run the tokenize stage again"):
        TrainingData(store, other, train_config)


def test_mlm_without_a_masking_cache_is_refused(
    store: PreparedStore, tokens: TokenStore, train_config: TrainConfig
) -> None:
    import dataclasses

    with pytest.raises(UserError, match=r"set tokenize\.mask_draws"):
        TrainingData(store, dataclasses.replace(tokens, mask_draws=0), train_config)


def test_identity_sampler_with_too_few_identities_is_a_user_s_mistake(data: TrainingData) -> None:
    config = data.config.model_copy(update={"sampler": "identity", "batch_size": 64, "num_instance": 2})
    with pytest.raises(UserError, match="a batch needs 32 identities"):
        TrainingData(data.store, data.tokens, config).epoch(1)
