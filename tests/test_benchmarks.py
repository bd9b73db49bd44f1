"""The benchmarks: the reference step computes what the product does, and every part can run."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from benchmarks import gpu
from benchmarks.__main__ import run
from benchmarks.measure import alternate
from benchmarks.reference_step import ReferenceStep, reference_batches, reference_losses
from benchmarks.results import Result, Row, number, write
from benchmarks.training import phases
from irra.config import TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.objective import objective
from tests.trainers import CPU, make_trainer


def gradients(losses: Mapping[str, Tensor], model: torch.nn.Module) -> dict[str, Tensor]:
    """The gradients of the sum of the losses."""
    model.zero_grad(set_to_none=True)
    torch.stack([value for name, value in losses.items() if name != "total"]).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("mask_global_text", [True, False])
def test_the_reference_step_has_the_losses_and_gradients_of_the_product(
    store: PreparedStore, tokens: TokenStore, train_config: TrainConfig, tmp_path, mask_global_text: bool
) -> None:
    config = train_config.model_copy(update={"mask_global_text": mask_global_text, "mlm_loss_weight": 0.5})
    trainer = make_trainer(store, tokens, config, tmp_path)
    trainer.model.train()
    expected = objective(trainer.model, next(trainer.data.batches(1, 0, CPU)), config).losses
    losses = reference_losses(trainer.model, next(reference_batches(trainer.data, 1, CPU)), config)
    assert set(losses) == set(expected) - {"total"}
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)
    ours, theirs = gradients(losses, trainer.model), gradients(expected, trainer.model)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_phases_are_those_of_the_step_that_ran(
    store: PreparedStore, tokens: TokenStore, train_config: TrainConfig, tmp_path
) -> None:
    trainer = make_trainer(store, tokens, train_config, tmp_path)
    step, batches = ReferenceStep(trainer.model, train_config), reference_batches(trainer.data, 1, CPU)
    before = trainer.model.classifier.weight.clone()
    with phases(step.optimizer, CPU) as seconds:
        step(next(batches))
    assert all(value > 0 for value in seconds.values())
    assert not trainer.model.classifier.weight.equal(before)
    with phases(trainer.optimizer, CPU) as seconds:
        for batch in trainer.rest_of_epoch():
            trainer.step(batch)
            break
    assert all(value > 0 for value in seconds.values())


def test_ratios_are_those_within_a_turn() -> None:
    costs = {"slow": iter([2.0, 30.0, 8.0]), "fast": iter([1.0, 10.0, 1.0])}
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return next(costs[name])

    turns = alternate({name: lambda name=name: side(name) for name in costs}, 3)
    assert order == ["slow", "fast", "fast", "slow", "slow", "fast"]
    assert turns.ratio("slow", "fast") == 3.0
    assert turns.median("slow") == 8.0


def test_no_turn_starts_when_time_is_over() -> None:
    turns = alternate({"one": lambda: time.sleep(0.01) or 1.0}, 5, seconds=0.0)
    assert turns.costs == {"one": [1.0]}


def test_idle_is_what_no_kernel_covers() -> None:
    assert gpu.idle_share([(5.0, 6.0), (0.0, 3.0), (1.0, 2.0), (8.0, 10.0)]) == 0.4


def test_the_benchmark_of_a_gpu_runs_with_a_small_model() -> None:
    rows = list(gpu.measure(CPU, small=True, compilers=("off",)))
    what = [row.what for row in rows]
    assert "batch 8, bf16, compile off" in what
    assert sum(name.startswith("kernel ") for name in what) == gpu.KERNELS
    assert "flash_attention" in str(rows[-1].value)


def test_a_part_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    result = run("results", "cpu")  # a module that measures nothing
    assert "has no attribute 'measure'" in result.error
    assert "has no attribute 'measure'" in capsys.readouterr().out


def test_results_keep_parts_that_were_measured_with_the_same_versions(tmp_path) -> None:
    path = tmp_path / "results" / "machine.json"

    def parts() -> list[str]:
        return list(json.loads(path.read_text())["parts"])

    row = Row("a step", 1.5, "s", details={"peak (GB)": 2.0})
    write(path, "one", {"torch": "2"}, {"training": Result(rows=[row])})
    write(path, "one", {"torch": "2"}, {"web": Result(notes=["text"])})
    assert parts() == ["training", "web"]
    write(path, "one", {"torch": "3"}, {"web": Result()})
    assert parts() == ["web"]


def test_a_printed_row_comes_back() -> None:
    row, result = Row("a step", 1.5, "s", "< 2", {"peak (GB)": 2.0}), Result()
    result.take(json.dumps(asdict(row)))
    result.take("12")
    assert (result.rows, result.notes) == ([row], ["12"])


@pytest.mark.parametrize(
    ("value", "text"), [(1061.4, "1,061"), (45.26, "45.3"), (1.5, "1.50"), (0.0601, "0.060"), (1e-8, "1e-08")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
