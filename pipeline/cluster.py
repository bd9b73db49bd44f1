"""Where and how tasks run on a cluster: read one YAML file, check it, and apply it to every task."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from kfp import dsl, kubernetes
from pydantic import Field, field_validator, model_validator

from components.s3.client import is_remote, parse_address
from components.stages import STAGES
from irra.config import ConfigSection, Count, Params, load_section, located
from irra.utils.errors import UserError, without_password

SECRET_NAME = re.compile(
    "SECRET|PASSW|PASSPHRASE|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY$|(^|_)(PWD|PASS|O?AUTH)($|_)", re.IGNORECASE
)
SHARED_MEMORY = "/dev/shm"
Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+|m)?$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(E|P|T|G|M|K)i?$")]
Duration = Annotated[str, Field(pattern=r"^[0-9]+[smhd]$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
Id = Annotated[int, Field(ge=0)]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TRANSFER_SECONDS = 3600  # for data and model, between a training on several nodes and the task that starts it


class Accelerator(ConfigSection):
    """The GPUs of one task, such as one `nvidia.com/gpu`."""

    type: str
    count: Count


class Toleration(ConfigSection):
    """A node taint that a task tolerates; the fields are those of Kubernetes."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class MatchExpression(ConfigSection):
    """A condition on a node's label; the fields are those of Kubernetes."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _values_suit_the_operator(self) -> "MatchExpression":
        if bool(self.values) == (self.operator in ("Exists", "DoesNotExist")):
            raise ValueError("operators In, NotIn, Gt and Lt take values, and no others do")
        if self.operator in ("Gt", "Lt") and not (len(self.values) == 1 and self.values[0].isdecimal()):
            raise ValueError(f"operator {self.operator} takes one whole number, such as values: ['8']")
        return self


class NodeAffinity(ConfigSection):
    """Nodes that a task requires or, with a weight, prefers: those for which all expressions hold.

    Of several terms without a weight, one has to hold.
    """

    match_expressions: Annotated[list[MatchExpression], Field(min_length=1)]
    weight: Annotated[int, Field(ge=1, le=100)] | None = None


class SecurityContext(ConfigSection):
    """The user of a container. Kubeflow Pipelines can set these fields and no others."""

    run_as_user: Id | None = None
    run_as_group: Id | None = None
    run_as_non_root: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "SecurityContext":
        if not self.model_dump(exclude_none=True):
            raise ValueError("set run_as_user, run_as_group or run_as_non_root, or leave it out")
        return self


class Resources(ConfigSection):
    """What one task requests."""

    cpu: Cpu
    cpu_limit: Cpu | None = None  # the most that it may use where nobody else needs it; null: what it requests
    memory: Memory
    timeout: Duration
    retries: Annotated[int, Field(ge=0)]
    accelerator: Accelerator | None = None
    shared_memory: Memory | None = None  # size of /dev/shm; 64 MB by default
    num_nodes: Count = 1  # of `train`: above 1, all of these settings are those of each node
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    node_affinity: list[NodeAffinity] = Field(default_factory=list)


class Secret(ConfigSection):
    """A Kubernetes Secret whose keys become environment variables."""

    name: str
    environment: dict[str, str]  # key in the secret -> variable
    optional: bool = False


class Volume(ConfigSection):
    """A persistent volume claim that every task mounts."""

    claim: str
    mount_path: Annotated[str, Field(pattern="^/")]


class Backoff(ConfigSection):
    """How long to wait before each retry: `duration` at first, then `factor` times longer each time."""

    duration: Duration
    factor: Count  # Argo accepts only whole numbers


TRACKING = "MLFLOW_TRACKING_URI"
TASKS = tuple(stage.name for stage in STAGES.values() if stage.on_kubeflow)


class Cluster(ConfigSection):
    """Everything about a cluster that the stages do not say themselves."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    image_pull_secrets: list[str] = Field(default_factory=list)
    service_account: str | None = None
    labels: dict[str, LabelValue] = Field(default_factory=dict)  # of every pod, and of a TrainJob
    annotations: dict[str, str] = Field(default_factory=dict)  # of every pod
    security_context: SecurityContext | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: list[Secret] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    backoff: Backoff
    parallelism: Count | None = None  # trainings of an ablation at the same time
    default: Resources
    tasks: dict[str, Resources] = Field(default_factory=dict)

    @field_validator("tasks", mode="before")
    @classmethod
    def _tasks_are_known(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name not in TASKS:
                raise ValueError(f"unknown task {name!r}; tasks are {', '.join(TASKS)}")
        return value

    @model_validator(mode="after")
    def _only_training_takes_several_nodes(self) -> "Cluster":
        for name, resources in (
            ("default", self.default),
            *((f"tasks.{name}", self.tasks[name]) for name in self.tasks),
        ):
            if resources.num_nodes > 1 and name != "tasks.train":
                raise ValueError(f"{name}.num_nodes is {resources.num_nodes}, but only train runs on several nodes")
        return self

    @model_validator(mode="after")
    def _secrets_hold_no_plain_values(self) -> "Cluster":
        for name, value in self.environment.items():
            if SECRET_NAME.search(name) or without_password(value) != value:
                raise ValueError(f"environment.{name} would be readable in the compiled pipeline; use `secrets`")
        return self

    def resources_of(self, name: str) -> Resources:
        """The settings of the task `name`."""
        return self.tasks.get(name, self.default)

    def pod_of(self, name: str) -> Resources:
        """What the pod of a task gets: its settings; if several nodes get these, enough to wait for the nodes."""
        resources = self.resources_of(name)
        if resources.num_nodes == 1:
            return resources
        timeout = f"{seconds(resources.timeout) + TRANSFER_SECONDS}s"
        size = self.default.model_dump(include={"cpu", "cpu_limit", "memory"})
        return Resources(**size, timeout=timeout, retries=resources.retries)

    def knows_mlflow(self) -> bool:
        """Whether tasks get the address of an MLflow server. Without one, what a task logs is lost with its pod."""
        return TRACKING in self.environment or any(TRACKING in secret.environment.values() for secret in self.secrets)


def load_cluster(path: Path) -> Cluster:
    """Read and check cluster settings.

    Raises:
        UserError: The file is missing or a setting is wrong; the message names the key and what would be right.
    """
    return load_section(Cluster, path)


def check_reachable(params: Params) -> None:
    """Check that tasks on a cluster can reach the data and weights that `params` name.

    Raises:
        UserError: A path is relative, so it names a file on this machine.
    """
    root = params.prepare.root_dir
    if params.prepare.source and is_remote(root):
        parse_address(root, "prepare.root_dir")
    elif params.prepare.source and not Path(root).is_absolute():
        raise UserError(
            f"prepare.root_dir: {root!r} is a folder on this machine, which a cluster cannot see; name one in S3 "
            "(s3://bucket/raw), or the absolute path of one on a volume (/data/raw)"
        )
    for address in located(params).also:
        if is_remote(address):
            parse_address(address, "evaluate.also")
        elif not Path(address).is_absolute():
            raise UserError(
                f"evaluate.also: {address!r} is a folder on this machine, which a cluster cannot see; name one in S3 "
                "(s3://bucket/raw/NAME), or the absolute path of one on a volume"
            )
    for key, weights in (("pretrained", params.train.pretrained), ("init_from", params.train.init_from)):
        if weights and not Path(weights).is_absolute() and (key == "init_from" or Path(weights).is_file()):
            what = "folder" if Path(weights).is_dir() else "file"
            raise UserError(
                f"train.{key}: {weights!r} is a {what} on this machine, which a cluster cannot see; "
                f"give the absolute path of a {what} on a volume"
            )


def check_nodes(cluster: Cluster, checkpoints: str) -> None:
    """Check that several nodes, if `train` has them, can share data and training states.

    Raises:
        UserError: They cannot, because `checkpoints` names no folder in S3.
    """
    nodes = cluster.resources_of("train").num_nodes
    if nodes > 1 and not checkpoints:
        raise UserError(
            f"tasks.train.num_nodes is {nodes}, and nodes share data and training states in S3: "
            "give --checkpoints s3://bucket/folder (with make: CHECKPOINTS)"
        )


def place(task: dsl.PipelineTask, name: str, cluster: Cluster) -> dsl.PipelineTask:
    """Apply the settings that `cluster` has for the task `name`."""
    resources = cluster.pod_of(name)
    for variable, value in cluster.environment.items():
        task.set_env_variable(variable, value)
    _ask_for(task, resources)
    _retry(task, resources, cluster.backoff)
    _mount(task, resources, cluster)
    _describe(task, cluster)
    return task


def _ask_for(task: dsl.PipelineTask, resources: Resources) -> None:
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu_limit or resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.accelerator:
        task.set_accelerator_type(resources.accelerator.type).set_accelerator_limit(resources.accelerator.count)
    for key, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in resources.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    for term in resources.node_affinity:
        kubernetes.add_node_affinity(task, **term.model_dump())


def _retry(task: dsl.PipelineTask, resources: Resources, backoff: Backoff) -> None:
    kubernetes.set_timeout(task, seconds(resources.timeout))
    if resources.retries:
        task.set_retry(
            resources.retries,
            backoff_duration=f"{seconds(backoff.duration)}s",
            backoff_factor=backoff.factor,
            backoff_max_duration=f"{longest(resources, backoff)}s",
        )


def longest(resources: Resources, backoff: Backoff) -> int:
    """Return the seconds that all attempts of a task can take, including the waits between them.

    Argo treats `backoff_max_duration` as a deadline for the whole task, counted from the start of the first attempt.
    With a shorter one, a task that fails late would not be retried, and a retry would be stopped before its timeout.
    """
    waits = sum(seconds(backoff.duration) * backoff.factor**retry for retry in range(resources.retries))
    return (resources.retries + 1) * seconds(resources.timeout) + waits


def _mount(task: dsl.PipelineTask, resources: Resources, cluster: Cluster) -> None:
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.image_pull_secrets)
    for secret in cluster.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.environment, optional=secret.optional)
    for volume in cluster.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.mount_path)
    if resources.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", SHARED_MEMORY, medium="Memory", size_limit=resources.shared_memory
        )


def _describe(task: dsl.PipelineTask, cluster: Cluster) -> None:
    for key, value in cluster.labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in cluster.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    if cluster.security_context:
        kubernetes.set_security_context(task, **cluster.security_context.model_dump())


def seconds(duration: str) -> int:
    """Convert `90s`, `15m`, `12h` or `2d` to seconds."""
    return int(duration[:-1]) * SECONDS[duration[-1]]
