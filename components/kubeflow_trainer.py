"""The adapter to Kubeflow Trainer: create, follow and delete a TrainJob, through its SDK.

The SDK is imported only where it is used: of all users, only those who train on several nodes need it.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import Field

from irra.config import ConfigSection, Count
from irra.utils.errors import TemporaryError, UserError
from irra.utils.signals import stop_on_signals

POLL_SECONDS = 10.0
LOST_SECONDS = 300.0  # the longest that Kubernetes may not answer
REMOVAL_SECONDS = 120.0  # the longest wait for the pods of a deleted TrainJob: their time to end, and a little more
LAST_LINES = 60  # of each other node's log, after a failure: torchrun writes 40 after what its process said
COMPLETE, FAILED = "Complete", "Failed"  # states of a TrainJob
NODE_0 = "node-0"
RUN_LABEL = "pipeline/runid"  # Kubeflow Pipelines puts it on the pods of a run
APPLY = "python -m pipeline training-runtime --cluster FILE --namespace NAME | kubectl apply -f -"
T = TypeVar("T")


class Nodes(ConfigSection):
    """The nodes that train, from the settings of the cluster.

    Attributes:
        runtime: Name of the TrainingRuntime.
        num_nodes: How many.
        processes: Per node, one for each accelerator.
        resources: Of each node, by their names in Kubernetes.
        environment: Names of variables that they get from the task.
        labels: Of the TrainJob, such as the queue of Kueue.
        timeout: Seconds.
    """

    runtime: str
    num_nodes: Count
    processes: Count
    resources: dict[str, str]
    environment: list[str]
    labels: dict[str, str] = Field(default_factory=dict)
    timeout: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class TrainJob:
    """What to create.

    Attributes:
        name: Belongs to one training of one run, so that the next attempt at it finds its TrainJob.
        kfp_run: The run.
        nodes: Where it runs.
        image, environment: Of every pod.
        arguments: Of torchrun.
    """

    name: str
    kfp_run: str
    nodes: Nodes
    image: str
    environment: dict[str, str]
    arguments: list[str]


def connect() -> Any:
    """Create a client for the namespace of this pod.

    Raises:
        UserError: The package kubeflow is not installed, or there is no cluster.
    """
    try:
        from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
        from kubernetes.config import ConfigException
    except ImportError:
        raise UserError(
            "training on several nodes needs the package kubeflow: pip install 'irra-pipeline[kubeflow]'"
        ) from None
    logging.getLogger("kubeflow").setLevel(logging.ERROR)  # it warns if it may not read the version of Kubeflow Trainer
    try:
        return TrainerClient(KubernetesBackendConfig())
    except ConfigException as error:
        raise UserError(f"training on several nodes needs a cluster: {error}") from None


def train(client: Any, job: TrainJob) -> None:
    """Create the TrainJob, or find the one that an earlier attempt has created, and follow it to its end.

    It is deleted at the end, however that comes: no later attempt shall find it, and no GPU stay busy. Only if this
    process is killed at once does it go on, and the next attempt finds it.

    Raises:
        UserError: The TrainJob could not be created or followed, failed, or took longer than its time.
        Interrupted: A signal arrived.
    """
    deadline = time.monotonic() + job.nodes.timeout
    apply = f"; apply TrainingRuntime {job.nodes.runtime} and its Role: {APPLY}"
    with (
        stop_on_signals() as request,
        request.at_once(f"stopped, and TrainJob {job.name} with it"),
        _deleted_at_the_end(client, job.name),
    ):
        with _user_errors(f"TrainJob {job.name} cannot be created", apply):
            create(client, job)
        with _user_errors(f"TrainJob {job.name} is lost"):
            follow(client, job.name, deadline)


def create(client: Any, job: TrainJob) -> None:
    """Create a TrainJob unless one with its name is running or complete; one that has failed is replaced."""
    from kubeflow.trainer import CustomTrainerContainer
    from kubeflow.trainer.options import ActiveDeadlineSeconds, Labels, Name, TrainerArgs, TrainerCommand

    trainer = CustomTrainerContainer(job.image, job.nodes.num_nodes, job.nodes.resources, job.environment)
    options = [
        Name(job.name),
        Labels({**job.nodes.labels, RUN_LABEL: job.kfp_run}),
        ActiveDeadlineSeconds(job.nodes.timeout),  # in case nobody is left to delete it; old Trainers ignore it
        TrainerCommand(["torchrun"]),
        TrainerArgs(job.arguments),
    ]
    while True:
        try:
            _answered(lambda: client.train(runtime=job.nodes.runtime, trainer=trainer, options=options))
            return _say(f"TrainJob {job.name}: created, with {job.nodes.num_nodes} nodes")
        except RuntimeError as error:
            if _status(error) != 409:
                raise
        with _unless_gone():
            if _answered(lambda: client.get_job(job.name)).status != FAILED:
                return _say(f"TrainJob {job.name}: exists already, from an earlier attempt; following it")
            delete(client, job.name)


def follow(client: Any, name: str, deadline: float) -> None:
    """Print every state of the TrainJob and what node 0 prints, until the TrainJob is complete.

    Raises:
        UserError: It failed, or the time is up.
    """
    state, log = "", Log()
    while time.monotonic() < deadline:
        job = _answered(lambda: client.get_job(name))
        if job.status != state:
            state = job.status
            _say(f"TrainJob {name}: {state}")
        log.show(client, job)
        if state == COMPLETE:
            return
        if state == FAILED:
            _show_last_lines(client, job)
            raise TemporaryError(f"TrainJob {name} failed, also after restarts; what its nodes said last is above")
        time.sleep(POLL_SECONDS)
    raise TemporaryError(
        f"TrainJob {name} has not ended within its timeout; the next attempt goes on from its last state"
    )


def delete(client: Any, name: str) -> None:
    """Delete a TrainJob if it exists, and wait until its pods are gone.

    Kubernetes removes what belongs to it a little later, pods last. A new TrainJob with its name would take what is
    left, such as its failure, for its own.
    """
    with _unless_gone():
        _answered(lambda: client.delete_job(name))
    backend, limit = client.backend, time.monotonic() + REMOVAL_SECONDS
    pods = {"label_selector": f"jobset.sigs.k8s.io/jobset-name={name}"}
    while backend.core_api.list_namespaced_pod(backend.namespace, **pods).items and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)


@dataclass
class Log:
    """How much of the log of node 0 has been printed. A restart replaces its pod, whose log begins again."""

    pod: str = ""
    lines: int = 0

    def show(self, client: Any, job: Any) -> None:
        """Print the lines that are new, if the pod has started."""
        pod = next((step.pod_name for step in job.steps if step.name == NODE_0), self.pod)
        if pod != self.pod:
            self.pod, self.lines = pod, 0
        lines = _log(client, job, NODE_0)
        for line in lines[self.lines :]:
            print(line, flush=True)
        self.lines = max(self.lines, len(lines))


def _log(client: Any, job: Any, step: str) -> list[str]:
    """Return the lines of a node's log. There are none while its pod is pending, or when it is gone."""
    with suppress(RuntimeError, TimeoutError):
        return list(client.get_job_logs(job.name, step=step))
    return []


def _show_last_lines(client: Any, job: Any) -> None:
    """Print the end of the other nodes' logs: the node that failed first says why."""
    for step in job.steps:
        if step.name != NODE_0:
            for line in _log(client, job, step.name)[-LAST_LINES:]:
                print(f"{step.name}: {line}", flush=True)


@contextmanager
def _deleted_at_the_end(client: Any, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            delete(client, name)
        except Exception as error:  # the reason to end matters more
            cure = f"kubectl delete trainjob {name}"
            print(f"warning: TrainJob {name} may still run: {_reason(error)}; {cure}", file=sys.stderr, flush=True)


@contextmanager
def _user_errors(problem: str, hint: str = "") -> Iterator[None]:
    """Turn the SDK's errors into a UserError; `hint` is for what is forbidden or not there."""
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        cure = hint if _status(error) in (403, 404) else ""
        kind = UserError if 400 <= _status(error) < 500 else TemporaryError
        raise kind(f"{problem}: {_reason(error)}{cure}") from None


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Leave the block if the TrainJob does not exist, perhaps no longer."""
    try:
        yield
    except RuntimeError as error:
        if _status(error) != 404:
            raise


def _answered(call: Callable[[], T]) -> T:
    """Call until Kubernetes answers: its API may be away for some minutes, such as during an upgrade."""
    limit = time.monotonic() + LOST_SECONDS
    while True:
        try:
            return call()
        except (RuntimeError, TimeoutError) as error:
            is_final = 400 <= _status(error) < 500 and _status(error) not in (401, 429)
            if is_final or time.monotonic() > limit:
                raise
        time.sleep(POLL_SECONDS)


def _status(error: BaseException) -> int:
    """Return the status of Kubernetes's answer, which the SDK keeps as the cause of its error; 0 without an answer."""
    return getattr(error.__cause__, "status", None) or 0


def _reason(error: BaseException) -> str:
    """Return what Kubernetes answered, in one line."""
    cause = error.__cause__ or error
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(getattr(cause, "body", ""))["message"])
    return " ".join((str(cause) or str(error)).split())


def _say(message: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {message}", flush=True)
