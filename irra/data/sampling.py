"""The random and the identity sampler, which choose the training captions of each batch of an epoch."""

import numpy as np
from numpy.typing import NDArray

Batches = list[NDArray[np.int64]]


def random_batches(samples: int, batch_size: int, rng: np.random.Generator) -> Batches:
    """All samples, shuffled and cut into batches; the last batch may be smaller."""
    order = rng.permutation(samples)
    return [order[start : start + batch_size] for start in range(0, samples, batch_size)]


def identity_batches(pids: NDArray[np.int64], batch_size: int, num_instance: int, rng: np.random.Generator) -> Batches:
    """Batches of batch_size / num_instance identities with num_instance samples each (Hermans et al., 2017).

    A sample is used at most once per epoch, except that an identity with fewer than num_instance samples repeats some.
    The epoch ends when fewer identities are left than a batch needs.

    Raises:
        ValueError: There are too few identities for a single batch.
    """
    per_batch = batch_size // num_instance
    groups = {int(pid): _groups(np.flatnonzero(pids == pid), num_instance, rng) for pid in np.unique(pids)}
    if len(groups) < per_batch:
        raise ValueError(f"a batch needs {per_batch} identities (batch_size / num_instance), there are {len(groups)}")
    batches: Batches = []
    while len(groups) >= per_batch:
        chosen = rng.choice(np.array(list(groups)), size=per_batch, replace=False)
        batches.append(np.concatenate([groups[int(pid)].pop() for pid in chosen]))
        groups = {pid: remaining for pid, remaining in groups.items() if remaining}
    return batches


def _groups(samples: NDArray[np.int64], num_instance: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The samples of one identity, shuffled, in complete groups of num_instance."""
    if len(samples) < num_instance:
        return [np.concatenate([samples, rng.choice(samples, num_instance - len(samples))])]
    order = rng.permutation(samples)
    return [order[start : start + num_instance] for start in range(0, len(order) - num_instance + 1, num_instance)]
