"""Whether the champion is outdated: trained on other data, or with other parameters, than a training would be now.

A scheduled pipeline asks before it trains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.tracking.registry import Registry
from components.tracking.tracker import as_params
from irra.config import RegistryConfig, TokenizeConfig, TrainConfig
from irra.data.store import PreparedStore
from irra.training import NOT_IN_FINGERPRINT


@dataclass(frozen=True)
class Outdated:
    """The answer, and the reason as a sentence."""

    yes: bool
    reason: str


def run(prepared: Path, tokenize: TokenizeConfig, train: TrainConfig, registry: RegistryConfig) -> Outdated:
    """Compare the prepared data and the parameters of a training with those of the champion, and of earlier trainings.

    A model that was judged on the same data and did not pass the gate does not get better by training it again.

    Raises:
        UserError: MLflow failed, or the data cannot be read.
    """
    data, models = PreparedStore.open(prepared).fingerprint, Registry(registry.model_name)
    settings = {name: value for name, value in train.model_dump().items() if name not in NOT_IN_FINGERPRINT}
    wanted = as_params({"tokenize": tokenize.model_dump(), "train": settings})
    found = compare(models, data, wanted)
    if found.yes and (run_id := models.find_rejected(data, wanted, registry.metric, registry.threshold)):
        same = f"was trained on these data ({data[:12]}) with these parameters"
        found = Outdated(False, f"MLflow run {run_id} {same}, and its model is not good enough for the champion")
    print(f"{'train' if found.yes else 'nothing to do'}: {found.reason}")
    return found


def compare(models: Registry, data: str, wanted: Mapping[str, str]) -> Outdated:
    """Compare with the champion: the fingerprint of its data, and the `wanted` parameters."""
    champion = models.champion()
    if champion is None:
        return Outdated(True, f"{models.model_name} has no champion yet")
    theirs = f"the champion of {models.model_name} (version {champion.version})"
    if champion.model.data_fingerprint != data:
        known = champion.model.data_fingerprint[:12] or "unknown"
        return Outdated(True, f"{theirs} was trained on other data ({known} instead of {data[:12]})")
    logged = models.parameters_of(champion)
    if changed := [name for name, value in wanted.items() if logged.get(name) != value]:
        shown = ", ".join(f"{name}: {logged.get(name, 'unknown')} instead of {wanted[name]}" for name in changed[:5])
        return Outdated(True, f"{theirs} was trained with other parameters ({shown})")
    return Outdated(False, f"{theirs} was trained on these data ({data[:12]}) with these parameters")
