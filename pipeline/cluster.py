"""Where and how tasks run on a cluster: one YAML file, checked, and put on every task."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from kfp import dsl, kubernetes
from pydantic import Field, field_validator, model_validator

from components.s3.client import is_remote, parse_address
from components.stages import STAGES
from irra.config import ConfigSection, Count, Params, load_section
from irra.utils.errors import UserError, without_password

SECRET_NAME = re.compile(
    "SECRET|PASSW|PASSPHRASE|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY$|(^|_)(PWD|PASS|O?AUTH)($|_)", re.IGNORECASE
)
SHARED_MEMORY = "/dev/shm"
Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+|m)?$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(E|P|T|G|M|K)i?$")]
Duration = Annotated[str, Field(pattern=r"^[0-9]+[smhd]$")]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Accelerator(ConfigSection):
    """GPUs of one task, such as one `nvidia.com/gpu`."""

    type: str
    count: Count


class Toleration(ConfigSection):
    """A taint that a task's pod may run on, as Kubernetes has it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(ConfigSection):
    """What one task asks for."""

    cpu: Cpu
    memory: Memory
    timeout: Duration
    retries: Annotated[int, Field(ge=0)]
    accelerator: Accelerator | None = None
    shared_memory: Memory | None = None  # /dev/shm, which is 64 MB otherwise
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)


class Secret(ConfigSection):
    """Keys of a Kubernetes Secret as environment variables."""

    name: str
    environment: dict[str, str]  # key of the secret: variable
    optional: bool = False


class Volume(ConfigSection):
    """A persistent volume claim, mounted in every task."""

    claim: str
    mount_path: Annotated[str, Field(pattern="^/")]


class Backoff(ConfigSection):
    """The wait before a failed task is tried again: `duration`, then `factor` times longer each time."""

    duration: Duration
    factor: Count  # whole: Argo reads nothing else


TRACKING = "MLFLOW_TRACKING_URI"
TASKS = tuple(stage.name for stage in STAGES.values() if stage.on_kubeflow)


class Cluster(ConfigSection):
    """All that a cluster needs to know beside the stages."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    image_pull_secrets: list[str] = Field(default_factory=list)
    service_account: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: list[Secret] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    backoff: Backoff
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
    def _secrets_hold_no_plain_values(self) -> "Cluster":
        for name, value in self.environment.items():
            if SECRET_NAME.search(name) or without_password(value) != value:
                raise ValueError(f"environment.{name} would be readable in the compiled pipeline; use `secrets`")
        return self

    def knows_mlflow(self) -> bool:
        """Whether tasks are told of a server; without one, each logs to a file that ends with its pod."""
        return TRACKING in self.environment or any(TRACKING in secret.environment.values() for secret in self.secrets)


def load_cluster(path: Path) -> Cluster:
    """Read cluster settings; UserError names the file, the key and what would be right."""
    return load_section(Cluster, path)


def check_reachable(params: Params) -> None:
    """UserError where `params` name files of this machine, which tasks on a cluster cannot see."""
    root, weights = params.prepare.root_dir, params.train.pretrained
    if params.prepare.source and is_remote(root):
        parse_address(root, "prepare.root_dir")
    elif params.prepare.source and not Path(root).is_absolute():
        raise UserError(
            f"prepare.root_dir: {root!r} is a folder of this machine, which a cluster does not see; name one in S3 "
            "(s3://bucket/raw), or on a volume by its absolute path (/data/raw)"
        )
    if weights and not Path(weights).is_absolute() and Path(weights).is_file():
        raise UserError(
            f"train.pretrained: {weights!r} is a file of this machine, which a cluster does not see; name one on a "
            "volume by its absolute path"
        )


def place(task: dsl.PipelineTask, name: str, cluster: Cluster) -> dsl.PipelineTask:
    """Give `task` all that `cluster` says of the task `name`."""
    resources = cluster.tasks.get(name, cluster.default)
    for variable, value in cluster.environment.items():
        task.set_env_variable(variable, value)
    _ask_for(task, resources)
    _retry(task, resources, cluster.backoff)
    _mount(task, resources, cluster)
    return task


def _ask_for(task: dsl.PipelineTask, resources: Resources) -> None:
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.accelerator:
        task.set_accelerator_type(resources.accelerator.type).set_accelerator_limit(resources.accelerator.count)
    for key, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in resources.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())


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
    """Seconds in which all attempts of a task end, with the waits between them.

    To Argo the maximum is a deadline of the whole task, counted from the start of its first attempt: with less, an
    attempt that fails late would not be followed by another, and a later one would be stopped before its timeout.
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


def seconds(duration: str) -> int:
    """`90s`, `15m`, `12h` or `2d` in seconds."""
    return int(duration[:-1]) * SECONDS[duration[-1]]
