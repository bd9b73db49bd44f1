"""Several processes compute what one computes, and end together."""

import shutil
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.distributed import ALONE, World
from tests import distributed
from tests.distributed import LOSSES, SAMPLERS, STOPPED_AT, half_config, training_config
from tests.models import small_model
from tests.trainers import train

pytestmark = pytest.mark.xdist_group("distributed")

CASES = [
    *(f"{sampler} {names}" for names in LOSSES for sampler in SAMPLERS),
    "clean captions",
    "parts",
    "selected tokens",
]


@pytest.fixture(scope="module")
def results(store: PreparedStore, tokens: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two and three processes computed."""
    folder = tmp_path_factory.mktemp("distributed")
    for processes in (2, 3):
        started = distributed.start(processes, store.root, tokens.root, folder)
        codes = [process.wait(120) for process in started]
        assert codes == {2: [0, -signal.SIGKILL], 3: [0, 0, 0]}[processes]
        if processes == 2:
            shutil.copytree(folder / "cut-2", folder / "resumed")
    return folder


@pytest.fixture(scope="module")
def expected(store: PreparedStore, tokens: TokenStore) -> dict[str, Any]:
    return distributed.alone(store, tokens)


@pytest.fixture(scope="module")
def whole(store: PreparedStore, tokens: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The trainer and the state of one process that trained to the end."""
    return train(store, tokens, training_config(), tmp_path_factory.mktemp("whole"))


def assert_close(found: Tensor, expected: Tensor, share: float, name: str) -> None:
    """Check that no element differs by more than a share of the largest; what is below 1e-12 is rounding."""
    largest = expected.abs().max().item()
    torch.testing.assert_close(
        found, expected, rtol=share, atol=share * largest + 1e-12, check_dtype=False, msg=lambda text: f"{name}: {text}"
    )


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check weights that float32 trained; keys' biases have no gradient but rounding, which Adam makes large."""
    for name, value in expected.items():
        if not name.endswith("in_proj_bias"):
            assert_close(found[name], value, 1e-3, name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("processes", [2, 3])
def test_losses_accuracies_and_gradients_are_those_of_one_process(
    results: Path, expected: dict[str, Any], processes: int, case: str
) -> None:
    found = torch.load(results / f"{processes}.pt", weights_only=False)["steps"][case]
    for kind in ("values", "gradients"):
        assert found[kind].keys() == expected[case][kind].keys()
        for name, value in expected[case][kind].items():
            assert_close(found[kind][name], value, 1e-6, name)


@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_drop_the_captions_that_one_process_drops(
    results: Path, store: PreparedStore, tokens: TokenStore, tmp_path: Path, processes: int
) -> None:
    found = torch.load(results / f"{processes}.pt", weights_only=False)["divided"]
    expected = distributed.divided(store, tokens, tmp_path, ALONE)
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-4, atol=1e-5)
    assert found["alike"]
    assert torch.equal(found["labels"], expected["labels"])
    assert 0 < found["labels"].sum() < len(found["labels"])


@pytest.mark.parametrize("processes", [2, 3])
def test_a_training_is_that_of_one_process(results: Path, whole: tuple[Any, Any], processes: int) -> None:
    found = torch.load(results / f"{processes}.pt", weights_only=False)
    trainer, state = whole
    assert_same_weights(found["weights"], trainer.model.state_dict())
    assert found["state"].validation == state.validation
    for row, other in zip(found["state"].history, state.history, strict=True):
        assert row == pytest.approx(other, rel=1e-3)


def test_float16_weights_are_trained_by_two_processes_as_by_one(
    results: Path, store: PreparedStore, tokens: TokenStore, tmp_path: Path
) -> None:
    history, weights = torch.load(results / "2.pt", weights_only=False)["halves"]
    trainer, state = train(store, tokens, half_config(), tmp_path)
    for row, other in zip(history, state.history, strict=True):
        assert row == pytest.approx(other, rel=1e-2)
    start = small_model(trainer.config.seed).state_dict()
    far, moved = torch.zeros(()), torch.zeros(())
    for name, value in trainer.model.state_dict().items():
        assert weights[name].dtype == value.dtype
        if not name.endswith("in_proj_bias"):  # the keys' move by rounding alone
            far += (weights[name].float() - value.float()).square().sum()
            moved += (value.float() - start[name].to(value.dtype).float()).square().sum()
    assert far.sqrt() < 0.05 * moved.sqrt()


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (2, f"another of the processes that work together has ended; the state of epoch 2 at step {STOPPED_AT - 5} is"),
        (3, f"stopped in epoch 2 at step {STOPPED_AT - 5}; run it again to resume"),
    ],
)
def test_a_killed_or_stopped_process_ends_all_with_a_state_that_one_process_resumes(
    results: Path, whole: tuple[Any, Any], store: PreparedStore, tokens: TokenStore, processes: int, message: str
) -> None:
    assert message in (results / f"{processes}.txt").read_text()
    trainer, state = train(store, tokens, training_config(), results / f"cut-{processes}")
    assert state.validation == whole[1].validation
    assert_same_weights(trainer.model.state_dict(), whole[0].model.state_dict())


def test_a_state_that_two_processes_wrote_is_resumed_by_three(results: Path, whole: tuple[Any, Any]) -> None:
    found = torch.load(results / "3.pt", weights_only=False)["resumed"]
    assert_same_weights(found, whole[0].model.state_dict())


@pytest.mark.parametrize(("total", "size"), [(10, 3), (8, 3), (2, 3), (7, 2)])
def test_rows_cover_a_batch_once(total: int, size: int) -> None:
    rows = [range(total)[World(rank, size).rows(total)] for rank in range(size)]
    assert [*chain.from_iterable(rows)] == [*range(total)]
    assert max(map(len, rows)) == World(0, size).width(total)
