"""MLflow's model registry: which version is the champion, and how another one takes its place.

Unlike metrics in training, registering is worth nothing without the server: every failure is a UserError, soon.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from components.tracking import waiting
from components.tracking.mlflow_quirks import link_to_version, prepare_mlflow
from components.tracking.run import DATA_FINGERPRINT_TAG
from components.tracking.store import (
    MODEL_FINGERPRINT_TAG,
    connect,
    experiment_id,
    find_run,
    origin_tags,
    tracking_uri,
)
from irra.utils.errors import UserError, root_cause, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPION = "champion"
DATASET_TAG = "irra.dataset"
METRIC_TAG = "irra.metric/"  # with a value in percent: irra.metric/val/t2i/R1
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Candidate:
    """A model's weights, the data that it was trained and measured on, and its metrics such as val/t2i/R1 in percent.

    A version of the registry carries the same as tags; what it lacks is "" or absent.
    """

    model_fingerprint: str
    data_fingerprint: str
    dataset: str
    metrics: Mapping[str, float]

    def as_tags(self) -> dict[str, str]:
        """Tags of a version."""
        metrics = {f"{METRIC_TAG}{name}": repr(value) for name, value in self.metrics.items()}
        return {
            MODEL_FINGERPRINT_TAG: self.model_fingerprint,
            DATA_FINGERPRINT_TAG: self.data_fingerprint,
            DATASET_TAG: self.dataset,
            **metrics,
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
    """The version that bears the alias."""

    version: str
    model: Candidate


@dataclass(frozen=True)
class Logged:
    """A model logged to a run."""

    model_id: str
    run_id: str

    @property
    def source(self) -> str:
        """Its address, from which a version is made."""
        return f"models:/{self.model_id}"


def connect_registry() -> "MlflowClient":
    """Return a client of the store, which MLflow's own functions then use too; UserError when it cannot be had."""
    prepare_mlflow()  # imports it, which no server has to answer for
    return ask("connecting", _connect)


def _connect() -> "MlflowClient":
    import mlflow

    client = connect(tracking_uri())
    mlflow.set_tracking_uri(tracking_uri())
    return client


def ask(action: str, question: Callable[[], T]) -> T:
    """Return what `question` returns; UserError when MLflow fails, or does not answer in time."""
    return explained(action, lambda: waiting.within(waiting.limit(tracking_uri()), question))


def explained(action: str, work: Callable[[], T]) -> T:
    """Return what `work` returns; where MLflow fails in it, UserError names `action` and the reason."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return work()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        root = root_cause(error)
        reason = f"{root}; see that the server runs" if isinstance(root, OSError) else " ".join(str(error).split())
        raise UserError(
            f"MLflow at {without_password(tracking_uri())}: {action} failed ({without_password(reason)[:300]})"
        ) from error


def asking(action: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a method go through `ask`."""

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        @wraps(method)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
            return ask(action, lambda: method(*args, **kwargs))

        return bounded

    return decorate


class Registry:
    """The versions of one registered model. Every method raises UserError when MLflow fails."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.client: Any = connect_registry()

    @asking("looking for the champion")
    def champion(self) -> Champion | None:
        """The version with the alias `champion`, if any has it."""
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

    @asking("looking for versions")
    def find_version(self, model_fingerprint: str) -> str | None:
        """The number of a version with these weights, if there is one."""
        found = self._versions(f"tags.`{MODEL_FINGERPRINT_TAG}`", model_fingerprint)
        return found[0] if found else None

    @asking("logging the model")
    def add_model(self, name: str, model_fingerprint: str) -> Logged:
        """Announce a model `name` of the run of MLFLOW_RUN_ID; else the latest with these weights; else a new run."""
        run = find_run(self.client, tracking_uri(), None, model_fingerprint) or self._make_run(model_fingerprint)
        run_id, params = run.info.run_id, run.data.params
        model = self.client.create_logged_model(run.info.experiment_id, name, run_id, params=params)
        return Logged(model.model_id, run_id)

    def upload(self, logged: Logged, folder: Path) -> None:
        """Send the files of an announced model, however long that takes, and show it among the run's outputs."""
        from mlflow.entities import LoggedModelOutput

        def send() -> None:
            self.client.log_model_artifacts(logged.model_id, str(folder))
            self.client.finalize_logged_model(logged.model_id, "READY")
            self.client.log_outputs(logged.run_id, [LoggedModelOutput(logged.model_id, step=0)])

        explained("uploading the model", send)

    @asking("registering")
    def add_version(self, logged: Logged, tags: Mapping[str, str]) -> str:
        """Make a version of an uploaded model; its number."""
        self._make_registered_model()
        made = self.client.create_model_version(
            self.model_name, logged.source, logged.run_id, dict(tags), model_id=logged.model_id
        )
        link_to_version(self.client, logged.model_id, self.model_name, made.version)
        return str(made.version)

    @asking("moving the champion")
    def set_champion(self, version: str) -> None:
        """Move the alias to `version`."""
        self.client.set_registered_model_alias(self.model_name, CHAMPION, version)

    @asking("taking the model back")
    def remove(self, logged: Logged, champion: Champion | None) -> None:
        """Delete a logged model and its version; the former `champion` gets the alias back where it has moved."""
        for version in self._versions("source_path", logged.source):
            now = self.champion()
            if champion and now and now.version == version:
                self.set_champion(champion.version)
            self.client.delete_model_version(self.model_name, version)
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
