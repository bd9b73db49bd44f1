"""How runs are told apart on Kubeflow's page."""

from datetime import datetime

from irra.config import change
from pipeline.labels import description, run_name
from tests.pipeline.packages import tiny

TIME = datetime(2026, 1, 2, 3, 4, 5)


def test_a_run_is_named_by_what_it_trains() -> None:
    params = change(tiny(), ["train.loss_names=sdm+id", "train.seed=3"])
    assert run_name(params, TIME) == "synthetic sdm+id seed 3 2026-01-02 03:04:05"


def test_an_ablation_is_named_so() -> None:
    assert run_name(tiny(), TIME, ["itc"]) == "synthetic ablation 2026-01-02 03:04:05"


def test_the_description_says_what_was_changed() -> None:
    text = description(change(tiny(), ["train.lr=1e-4"]), "irra:1", ["train.lr=1e-4"])
    assert text == "synthetic, sdm+mlm+id, seed 0, irra-tiny, 2 epochs, image irra:1, train.lr=1e-4"


def test_the_description_of_an_ablation_lists_losses_and_seeds() -> None:
    text = description(tiny(), "irra:1", [], ["itc", "sdm+id"], [0, 1])
    assert text == "synthetic, losses itc sdm+id, seeds 0 1, irra-tiny, 2 epochs, image irra:1"
