"""MLflow's model registry: the champion, and registering a new version.

Training goes on without an MLflow server, but registering is pointless without one: every failure is a UserError, and
every request has a time limit.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from components.tracking.logged_models import (
    add_output,
    claim,
    create_model,
    find_model,
    finish_model,
    link_version,
    remove_orphans,
    unlink_version,
)
from components.tracking.mlflow_quirks import prepare_mlflow
from components.tracking.store import (
    DATA_FINGERPRINT_TAG,
    DATASET_TAG,
    MODEL_FINGERPRINT_TAG,
    connect,
    existing_run,
    experiment_id,
    find_run,
    origin_tags,
    tracking_uri,
)
from irra.utils.errors import TemporaryError, UserError, root_cause, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPION = "champion"
METRIC_TAG = "irra.metric/"  # with a value in percent: irra.metric/val/t2i/R1
LOST_TAG = "irra.lost_to"  # of a run whose model was not better than the champion: `irra 3`
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Candidate:
    """A model's weights, the data it was trained and evaluated on, and its metrics, such as val/t2i/R1, in percent.

    A version in the registry carries the same values as tags; a missing value is "" or absent.
    """

    model_fingerprint: str
    data_fingerprint: str
    dataset: str
    metrics: Mapping[str, float]

    def as_tags(self) -> dict[str, str]:
        """The tags of a version."""
        return self.identity_tags() | {f"{METRIC_TAG}{name}": repr(value) for name, value in self.metrics.items()}

    def identity_tags(self) -> dict[str, str]:
        """Those of the tags that say which weights and which data these are."""
        return {
            MODEL_FINGERPRINT_TAG: self.model_fingerprint,
            DATA_FINGERPRINT_TAG: self.data_fingerprint,
            DATASET_TAG: self.dataset,
        }

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> "Candidate":
        """The inverse of `as_tags`."""
        metrics = {
            name.removeprefix(METRIC_TAG): float(text) for name, text in tags.items() if name.startswith(METRIC_TAG)
        }
        names = (MODEL_FINGERPRINT_TAG, DATA_FINGERPRINT_TAG, DATASET_TAG)
        model, data, dataset = (tags.get(name, "") for name in names)
        return cls(model, data, dataset, metrics)


@dataclass(frozen=True)
class Champion:
    """The version with the alias `champion`."""

    version: str
    model: Candidate


@dataclass(frozen=True)
class Logged:
    """A logged model of a run; `is_new` if there was none before this registration."""

    model_id: str
    run_id: str
    is_new: bool = False

    @property
    def source(self) -> str:
        """The address that a version is created from."""
        return f"models:/{self.model_id}"


def connect_registry() -> "MlflowClient":
    """Return a client of the store, and make MLflow's own functions use the same store.

    Raises:
        UserError: The store cannot be opened or does not answer.
    """
    prepare_mlflow()  # outside the time limit, which is for the server and not for the import
    return explain_failure("connecting", _connect)


def _connect() -> "MlflowClient":
    import mlflow

    client = connect(tracking_uri())
    mlflow.set_tracking_uri(tracking_uri())
    return client


def explain_failure(action: str, function: Callable[[], T]) -> T:
    """Call `function` and return its result.

    Raises:
        UserError: MLflow failed or did not answer; the message names `action` and the reason.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return function()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        root = root_cause(error)
        reason = (
            f"{root}; check that the server is running" if isinstance(root, OSError) else " ".join(str(error).split())
        )
        kind = TemporaryError if isinstance(root, OSError) else UserError
        raise kind(
            f"MLflow at {without_password(tracking_uri())}: {action} failed ({without_password(reason)[:300]})"
        ) from error


def mlflow_call(action: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a method so that it runs in `explain_failure`."""

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        @wraps(method)
        def explained(*args: P.args, **kwargs: P.kwargs) -> T:
            return explain_failure(action, lambda: method(*args, **kwargs))

        return explained

    return decorate


class Registry:
    """The versions of one registered model. Every method raises UserError if MLflow fails."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.client: Any = connect_registry()

    @mlflow_call("looking for the champion")
    def champion(self) -> Champion | None:
        """Find the version with the alias `champion`, if there is one."""
        from mlflow.exceptions import MlflowException

        try:
            aliases = self.client.get_registered_model(self.model_name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if CHAMPION not in aliases:
            return None
        version = self.client.get_model_version(self.model_name, aliases[CHAMPION])
        return Champion(str(version.version), Candidate.from_tags(version.tags))

    @mlflow_call("looking for the champion's parameters")
    def parameters_of(self, champion: Champion) -> dict[str, str]:
        """Return the parameters logged by the run that trained the champion; none if that run is gone."""
        version = self.client.get_model_version(self.model_name, champion.version)
        run = existing_run(self.client, version.run_id)
        return dict(run.data.params) if run else {}

    @mlflow_call("noting the decision")
    def note_loss(self, candidate: Candidate, champion: Champion) -> None:
        """Note at the runs that trained a model, perhaps several with equal weights, which champion it lost to."""
        for run in self._runs(MODEL_FINGERPRINT_TAG, candidate.model_fingerprint):
            self.client.set_tag(run.info.run_id, LOST_TAG, self._address(champion))

    @mlflow_call("looking for earlier trainings")
    def find_rejected(
        self, data_fingerprint: str, params: Mapping[str, str], metric: str, threshold: float
    ) -> str | None:
        """Find a run with these data and parameters whose model would not pass the gate, if there is one.

        A model that was evaluated but never judged does not count: what should have judged it may have failed.
        """
        champion, best = self.champion(), -math.inf
        if champion and champion.model.data_fingerprint == data_fingerprint:
            best = champion.model.metrics.get(metric, best)
        for run in self._runs(DATA_FINGERPRINT_TAG, data_fingerprint):
            value = run.data.metrics.get(f"final/{metric}")
            if value is None or not params.items() <= run.data.params.items():
                continue
            lost = champion is not None and run.data.tags.get(LOST_TAG) == self._address(champion)
            if lost or value < threshold or value <= best:
                return str(run.info.run_id)
        return None

    def _runs(self, tag: str, value: str) -> "list[Run]":
        experiment = experiment_id(self.client, tracking_uri())
        return list(self.client.search_runs([experiment], f"tags.`{tag}` = '{value}'"))

    def _address(self, champion: Champion) -> str:
        return f"{self.model_name} {champion.version}"

    @mlflow_call("looking for versions")
    def find_version(self, model_fingerprint: str) -> str | None:
        """Find the number of a version with these weights, if there is one."""
        found = self._versions(f"tags.`{MODEL_FINGERPRINT_TAG}`", model_fingerprint)
        return found[0] if found else None

    @mlflow_call("logging the model")
    def add_model(self, candidate: Candidate, run_id: str | None = None) -> Logged:
        """Find the logged model that training made, or make one if there is none, as of an imported model.

        It belongs to the run in MLFLOW_RUN_ID, or else to `run_id`, or else to the latest run with these weights, or
        else to a new run.
        """
        fingerprint = candidate.model_fingerprint
        run = find_run(self.client, tracking_uri(), run_id, fingerprint) or self._make_run(fingerprint)
        remove_orphans(self.client, run.info.experiment_id)
        model, is_new = find_model(self.client, run, fingerprint), False
        if model is None:
            model, is_new = create_model(self.client, run, candidate.identity_tags(), {}), True
        return Logged(model.model_id, run.info.run_id, is_new)

    def upload(self, logged: Logged, folder: Path) -> None:
        """Upload the package of a logged model, without a time limit, and list it among the run's outputs."""

        def send() -> None:
            model, run = self.client.get_logged_model(logged.model_id), self.client.get_run(logged.run_id)
            claim(self.client, model)
            self.client.log_model_artifacts(logged.model_id, str(folder))
            finish_model(self.client, model, "READY")
            add_output(self.client, run, logged.model_id, step=0)

        explain_failure("uploading the model", send)

    @mlflow_call("registering")
    def add_version(self, logged: Logged, tags: Mapping[str, str]) -> str:
        """Create a version from an uploaded model, and return its number."""
        self._make_registered_model()
        version = self.client.create_model_version(
            self.model_name, logged.source, logged.run_id, dict(tags), model_id=logged.model_id
        )
        link_version(self.client, logged.model_id, self.model_name, version.version)
        return str(version.version)

    @mlflow_call("completing the version")
    def complete_version(self, version: str, tags: Mapping[str, str]) -> Logged:
        """Do what a process killed after `add_version` began may have left, and describe the model as it is now."""
        found = self.client.get_model_version(self.model_name, version)
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self.client.set_model_version_tag(self.model_name, version, name, value)
        logged = Logged(found.model_id or found.source.removeprefix("models:/"), found.run_id)
        if found.source == logged.source:  # not a version made by hand from files elsewhere
            link_version(self.client, logged.model_id, self.model_name, version)
        return logged

    @mlflow_call("moving the champion")
    def set_champion(self, version: str) -> None:
        """Move the alias `champion` to `version`."""
        self.client.set_registered_model_alias(self.model_name, CHAMPION, version)

    @mlflow_call("removing the model")
    def remove(self, logged: Logged, champion: Champion | None) -> None:
        """Delete the version of a logged model, and give the alias back to the former `champion` if it has moved.

        A logged model that training made stays, with the package, which the next registration replaces.
        """
        for version in self._versions("source_path", logged.source):
            current = self.champion()
            if champion and current and current.version == version:
                self.set_champion(champion.version)
            self.client.delete_model_version(self.model_name, version)
            unlink_version(self.client, logged.model_id, self.model_name, version)
        if logged.is_new:
            self.client.delete_logged_model(logged.model_id)

    def _versions(self, key: str, value: str) -> list[str]:
        found = self.client.search_model_versions(f"{key} = '{value}'")
        return [str(version.version) for version in found if version.name == self.model_name]

    def _make_run(self, model_fingerprint: str) -> "Run":
        tags = {**origin_tags("register"), MODEL_FINGERPRINT_TAG: model_fingerprint}
        run = self.client.create_run(experiment_id(self.client, tracking_uri()), tags=tags)
        self.client.set_terminated(run.info.run_id)
        return run

    def _make_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
