"""Decide whether a model is good enough for the registry, and better than the champion on the same data.

python -m components.gate               # prints the verdict and the reason; exits with 0 in both cases
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.layout import CHAMPION, DECISION, EVALUATION
from components.results import EVALUATE_AGAIN, RESULTS, read_results
from components.stage import main
from components.tracking.registry import CHAMPION as ALIAS
from components.tracking.registry import Candidate, Champion, Registry
from irra.config import RegistryConfig
from irra.utils.errors import UserError
from irra.utils.files import write_json
from irra.utils.nested import flatten


@dataclass(frozen=True)
class Inputs:
    """The report of the evaluate stage: the metrics, and the model they belong to; perhaps also the champion's.

    Without it, the champion has only the metrics on the data with which it was registered.
    """

    report: Path = EVALUATION
    champion: Path = CHAMPION


@dataclass(frozen=True)
class Outputs:
    """The return value of `run` as JSON."""

    decision: Path = DECISION


@dataclass(frozen=True)
class Decision:
    """Whether a model may become the champion, the reason as a sentence, and the champion that it lost to, if any."""

    passed: bool
    reason: str
    lost_to: Champion | None = None


def run(inputs: Inputs, outputs: Outputs, config: RegistryConfig) -> dict[str, Any]:
    """Decide on a model. Its runs in MLflow get a note if it loses to the champion; nothing else there changes.

    Returns:
        `verdict`, which is "pass" or "fail", and `reason`.
    """
    candidate = read_candidate(inputs.report, config.metric)
    again = read_evaluated_champion(inputs.champion)
    registry = Registry(config.model_name)
    decision = check_registry(registry, candidate, config, again)
    if decision.lost_to:
        registry.note_loss(candidate, decision.lost_to)
    result = {"verdict": "pass" if decision.passed else "fail", "reason": decision.reason}
    write_json(outputs.decision, result)
    print(f"{result['verdict']}: {decision.reason}")
    return result


def check_registry(
    registry: Registry, candidate: Candidate, config: RegistryConfig, again: Candidate | None = None
) -> Decision:
    """Decide on a model against the registry's champion; a model that is the champion already fails.

    A version of this model without the alias does not count: it lost against another champion, or the process that
    registered it was killed before it could move the alias. `again` is a later evaluation of the champion.
    """
    champion = registry.champion()
    if champion and champion.model.model_fingerprint == candidate.model_fingerprint:
        registered = f"version {champion.version} of {config.model_name}"
        return Decision(
            False, f"this model is already {registered}; delete that version to register it again", champion
        )
    return decide(candidate, on_same_data(champion, again, candidate), config)


def on_same_data(champion: Champion | None, again: Candidate | None, candidate: Candidate) -> Champion | None:
    """Return the champion with its metrics on the candidate's data, if `again` is its evaluation on them."""
    if champion is None or again is None:
        return champion
    fits = again.model_fingerprint == champion.model.model_fingerprint
    return replace(champion, model=again) if fits and again.data_fingerprint == candidate.data_fingerprint else champion


def read_evaluated_champion(report: Path) -> Candidate | None:
    """Read the champion's evaluation, if there is one; it may be of a former champion, or on other data.

    Raises:
        UserError: It is not usable.
    """
    return read_measured(report) if (report / RESULTS).exists() else None


def decide(candidate: Candidate, champion: Champion | None, config: RegistryConfig) -> Decision:
    """The rule: at or above the threshold, and better than a champion that was evaluated on the same data."""
    name, metric, value = config.model_name, config.metric, candidate.metrics[config.metric]
    if value < config.threshold:
        return Decision(False, f"{metric} {value:g} is below registry.threshold {config.threshold:g}")
    if champion is None:
        return Decision(True, f"{metric} {value:g} reaches {config.threshold:g}, and {name} has no champion yet")
    rival = f"the champion of {name} (version {champion.version})"
    if difference := _incomparable(candidate, champion.model, metric):
        remedy = "evaluate the champion on these data (python -m components.champion), "
        remedy += f"set registry.model_name to another name for this data, or delete the alias {ALIAS} of {name}"
        return Decision(False, f"{rival} cannot be compared: {difference}; {remedy}")
    best = champion.model.metrics[metric]
    if value <= best:
        return Decision(False, f"{metric} {value:g} is not better than {best:g} of {rival}", champion)
    return Decision(True, f"{metric} {value:g} is better than {best:g} of {rival}")


def _incomparable(candidate: Candidate, rival: Candidate, metric: str) -> str:
    """Why the metrics of two models cannot be compared; "" if they can."""
    if rival.data_fingerprint != candidate.data_fingerprint:
        theirs, ours = (f"{model.dataset} {model.data_fingerprint[:12]}".strip() for model in (rival, candidate))
        return f"it was evaluated on other data ({theirs or 'unknown'} instead of {ours})"
    return "" if metric in rival.metrics else f"it has no {metric}"


def read_candidate(report: Path, metric: str) -> Candidate:
    """Read from a report which model was evaluated on which data, and its metrics, among which `metric` has to be.

    Raises:
        UserError: The report is not usable, or `metric` is not in it.
    """
    candidate = read_measured(report)
    if metric not in candidate.metrics:
        split = metric.split("/")[0]
        raise UserError(
            f"{report / RESULTS}: no {metric}; does the data have no {split} split? "
            "Set registry.metric to a metric of the test split, or hold out identities with prepare.val_share"
        )
    return candidate


def read_measured(report: Path) -> Candidate:
    """Read from a report which model was evaluated on which data, and its metrics.

    Raises:
        UserError: The report is not usable.
    """
    results = read_results(report)
    try:
        metrics = {name: float(value) for name, value in flatten(results["metrics"], "/").items()}
        if any(name.count("/") != 2 for name in metrics):
            raise ValueError("metrics are by split, direction and name")
        model = results["model"]
        return Candidate(model["fingerprint"], model["data_fingerprint"], model["dataset"], metrics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{report / RESULTS}: not the results of `evaluate` ({error!r}); {EVALUATE_AGAIN}") from None


if __name__ == "__main__":
    raise SystemExit(main("gate", run, Inputs, Outputs, section="registry"))
