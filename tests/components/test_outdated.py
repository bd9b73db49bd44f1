"""Whether a scheduled pipeline trains: the champion against the data and the parameters of today."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from components import outdated
from components.tracking.registry import Registry
from components.tracking.run import open_run
from components.tracking.store import MODEL_FINGERPRINT_TAG, tracking_uri
from components.tracking.tracker import DATA_FINGERPRINT_TAG
from irra.config import Params, RegistryConfig
from irra.data.store import PreparedStore
from tests.components.test_registry import add_champion, candidate, project  # noqa: F401
from tests.components.test_tracking import clean_environment  # noqa: F401

pytestmark = pytest.mark.xdist_group("mlflow")


@pytest.fixture
def registry(project: Path, store: PreparedStore, params: Params) -> RegistryConfig:  # noqa: F811
    """A registry whose champion was trained on `store` with `params`."""
    client, name = MlflowClient(tracking_uri()), "irra-outdated"
    if not client.search_registered_models(f"name = '{name}'"):
        with open_run("train") as tracker:
            tracker.log_params({"tokenize": params.tokenize.model_dump(), "train": params.train.model_dump()})
        client.create_registered_model(name)
        champion = candidate(50.0, data=store.fingerprint)
        client.create_model_version(name, "s3://elsewhere/model", tracker.run_id, tags=champion.as_tags())
        client.set_registered_model_alias(name, "champion", "1")
    return RegistryConfig(model_name=name)


def ask(store: PreparedStore, params: Params, registry: RegistryConfig, **train: object) -> outdated.Outdated:
    changed = params.train.model_copy(update=train)
    return outdated.run(store.root, params.tokenize, changed, registry)


def test_a_champion_of_the_same_data_and_parameters_is_up_to_date(
    store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    found = ask(store, params, registry)
    assert (found.yes, found.reason.startswith("the champion of irra-outdated (version 1)")) == (False, True)


def test_parameters_that_change_no_result_do_not_count(
    store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    assert not ask(store, params, registry, device="cuda", checkpoint_minutes=1.0).yes


def test_other_parameters_are_named(store: PreparedStore, params: Params, registry: RegistryConfig) -> None:
    found = ask(store, params, registry, lr=0.5)
    assert (found.yes, f"train.lr: {params.train.lr} instead of 0.5" in found.reason) == (True, True)


def test_without_a_champion_there_is_something_to_train(
    store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    nobody = registry.model_copy(update={"model_name": "irra-nobody"})
    assert ask(store, params, nobody) == outdated.Outdated(True, "irra-nobody has no champion yet")


@pytest.mark.parametrize(("data", "reason"), [("e" * 64, "other data"), ("", "unknown instead of")])
def test_a_champion_of_other_data_is_outdated(
    data: str, reason: str, store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    other = registry.model_copy(update={"model_name": f"irra-other-{data[:1]}"})
    add_champion(other.model_name, candidate(50.0, data=data))
    found = ask(store, params, other)
    assert (found.yes, reason in found.reason) == (True, True)


def log_training(store: PreparedStore, params: Params, seed: int, weights: str, **metrics: float) -> str:
    """Log what a training with another seed, and perhaps its evaluation, leave in MLflow; returns the run's id."""
    train = params.train.model_copy(update={"seed": seed})
    with open_run("train") as tracker:
        tracker.set_tags({DATA_FINGERPRINT_TAG: store.fingerprint, MODEL_FINGERPRINT_TAG: weights})
        tracker.log_params({"tokenize": params.tokenize.model_dump(), "train": train.model_dump()})
        tracker.log_metrics(metrics, 1)
    return str(tracker.run_id)


def test_what_was_trained_on_these_data_and_is_below_the_threshold_is_not_trained_again(
    store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    other = registry.model_copy(update={"model_name": "irra-below", "threshold": 20.0})
    log_training(store, params, 17, "below")  # not evaluated
    assert ask(store, params, other, seed=17).yes
    run_id = log_training(store, params, 17, "below", **{f"final/{other.metric}": 10.0})
    assert run_id in ask(store, params, other, seed=17).reason
    assert ask(store, params, other, seed=18).yes
    assert ask(store, params, other.model_copy(update={"threshold": 5.0}), seed=17).yes


def test_what_was_trained_on_these_data_is_trained_again_until_it_was_judged(
    store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    other, models = registry.model_copy(update={"model_name": "irra-of-old-data"}), Registry("irra-of-old-data")
    add_champion(other.model_name, candidate(90.0, data="e" * 64))
    run_id = log_training(store, params, 19, "judged", **{f"final/{other.metric}": 60.0})
    assert ask(store, params, other, seed=19).yes  # perhaps the gate failed, or nobody asked it
    champion = models.champion()
    assert champion is not None
    models.note_loss(candidate(60.0, "judged", data=store.fingerprint), champion)
    assert run_id in ask(store, params, other, seed=19).reason
    add_champion(other.model_name, candidate(50.0, data="f" * 64))
    assert ask(store, params, other, seed=19).yes
    add_champion(other.model_name, candidate(60.0, data=store.fingerprint))  # of other parameters, on these data
    assert run_id in ask(store, params, other, seed=19).reason


def test_a_champion_whose_run_is_gone_is_outdated(
    store: PreparedStore, params: Params, registry: RegistryConfig
) -> None:
    other = registry.model_copy(update={"model_name": "irra-without-run"})
    add_champion(other.model_name, candidate(50.0, data=store.fingerprint))
    assert "unknown instead of" in ask(store, params, other).reason
