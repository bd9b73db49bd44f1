"""Whether the champion is outdated: trained on other data, or with other parameters, than a training would be now.

A scheduled pipeline asks before it trains.
"""

from dataclasses import dataclass
from pathlib import Path

from components.tracking.registry import Champion, Registry
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
    """Compare the prepared data and the parameters of a training with those of the champion.

    Raises:
        UserError: MLflow failed, or the data cannot be read.
    """
    models = Registry(registry.model_name)
    champion = models.champion()
    if champion is None:
        return Outdated(True, f"{registry.model_name} has no champion yet")
    found = compare(models, champion, PreparedStore.open(prepared), tokenize, train)
    print(f"{'train' if found.yes else 'nothing to do'}: {found.reason}")
    return found


def compare(
    models: Registry, champion: Champion, store: PreparedStore, tokenize: TokenizeConfig, train: TrainConfig
) -> Outdated:
    """Compare with a champion; parameters that change no result do not count."""
    theirs = f"the champion of {models.model_name} (version {champion.version})"
    if champion.model.data_fingerprint != store.fingerprint:
        known = champion.model.data_fingerprint[:12] or "unknown"
        return Outdated(True, f"{theirs} was trained on other data ({known} instead of {store.fingerprint[:12]})")
    settings = {name: value for name, value in train.model_dump().items() if name not in NOT_IN_FINGERPRINT}
    wanted = as_params({"tokenize": tokenize.model_dump(), "train": settings})
    logged = models.parameters_of(champion)
    if changed := [name for name, value in wanted.items() if logged.get(name) != value]:
        shown = ", ".join(f"{name}: {logged.get(name, 'unknown')} instead of {wanted[name]}" for name in changed[:5])
        return Outdated(True, f"{theirs} was trained with other parameters ({shown})")
    return Outdated(False, f"{theirs} was trained on these data ({store.fingerprint[:12]}) with these parameters")
