"""The contracts of both samplers."""

import numpy as np
import pytest

from irra.data.sampling import identity_batches, random_batches


def test_random_batches_hold_every_sample_once_and_keep_the_rest() -> None:
    batches = random_batches(70, 32, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [32, 32, 6]
    assert sorted(np.concatenate(batches)) == list(range(70))


def test_random_batches_of_cuhk_pedes_are_1065() -> None:
    assert len(random_batches(68_126, 64, np.random.default_rng(0))) == 1065


def test_random_batches_are_shuffled_by_the_generator() -> None:
    one, same, other = (np.concatenate(random_batches(50, 8, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()


@pytest.fixture
def pids() -> np.ndarray:
    return np.repeat(np.arange(9), [8, 8, 8, 8, 8, 8, 5, 4, 2])


def test_identity_batches_have_num_instance_of_each_identity(pids: np.ndarray) -> None:
    for batch in identity_batches(pids, 16, 4, np.random.default_rng(0)):
        _, counts = np.unique(pids[batch], return_counts=True)
        assert counts.tolist() == [4, 4, 4, 4]


def test_identity_batches_use_a_sample_at_most_once(pids: np.ndarray) -> None:
    used = np.concatenate(identity_batches(pids, 16, 4, np.random.default_rng(0)))
    samples, counts = np.unique(used, return_counts=True)
    assert set(pids[samples[counts > 1]]) <= {8}  # the identity with two samples


def test_an_identity_with_too_few_samples_repeats_but_uses_all(pids: np.ndarray) -> None:
    batches = identity_batches(pids, 36, 4, np.random.default_rng(0))
    mine = [sample for batch in batches for sample in batch if pids[sample] == 8]
    assert len(mine) == 4
    assert set(mine) == set(np.flatnonzero(pids == 8))


def test_identity_epoch_goes_on_while_enough_identities_are_left(pids: np.ndarray) -> None:
    # six identities have two groups each, three have one: with two a batch, at most one group is left over
    batches = identity_batches(pids, 8, 4, np.random.default_rng(0))
    assert 6 <= len(batches) <= 7


def test_fewer_identities_than_a_batch_needs_is_an_error(pids: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a batch needs 16 identities .* there are 9"):
        identity_batches(pids, 64, 4, np.random.default_rng(0))
