"""Run a pipeline on this machine with kfp's own runners: each task a subprocess, or a container of the real image."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from kfp import local

from components.tracking.store import tracking_uri
from irra.config import Params, located
from irra.utils.errors import UserError
from pipeline.graph import Pipeline
from pipeline.kfp_quirks import quote_interpreter, run_here

# variables that users set for the stages; containers do not inherit them
PASSED_ON = ("AWS_", "MLFLOW_", "OMP_NUM_THREADS")
SERVER_SECONDS = 60.0
RUN_ID = "KFP_RUN_ID"  # on a cluster, a label of the pod


def run_in_subprocesses(pipeline: Pipeline, root: Path, values: Mapping[str, Any]) -> Path:
    """Run the tasks of `pipeline` with this Python and return the folder of the run.

    Raises:
        UserError: A task failed.
    """
    quote_interpreter()
    own = _folder_of_its_own(root)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(own))
    with _variable(RUN_ID, own.name):
        return run_here(pipeline, own, values)


def run_in_containers(
    pipeline: Pipeline, root: Path, values: Mapping[str, Any], image: str, mounts: list[Path]
) -> Path:
    """Run the tasks of `pipeline`, which all use `image`, in containers, and return the folder of the run.

    Containers use this machine's network and user. The run's folder in `root` is mounted at its own path, and so are
    `mounts`, read-only. While they run, an MLflow server gives them access to the project's store.

    Raises:
        UserError: A task failed, or Docker or the image is not available.
    """
    from docker.types import Mount

    check_engine(image)
    own = _folder_of_its_own(root)
    artifacts = Path("mlartifacts").resolve()  # where the default store keeps files
    artifacts.mkdir(exist_ok=True)
    with tracking_server() as uri:
        runner = local.DockerRunner(
            environment={
                **_environment(),
                "MLFLOW_TRACKING_URI": uri,
                RUN_ID: own.name,
                "no_proxy": "127.0.0.1",
                "NO_PROXY": "127.0.0.1",
            },
            network_mode="host",
            user=f"{os.getuid()}:{os.getgid()}",
            shm_size="1g",
            mounts=[Mount(str(artifacts), str(artifacts), type="bind")]
            + [Mount(str(path), str(path), type="bind", read_only=True) for path in mounts],
        )
        local.init(runner, pipeline_root=str(own))
        return run_here(pipeline, own, values)


def on_this_machine(params: Params) -> tuple[Params, list[Path]]:
    """Return `params` with absolute paths of local data and weights, and the paths that containers must mount."""
    prepare, train, evaluate = params.prepare, params.train, located(params)
    others = [str(Path(entry).absolute()) if Path(entry).is_dir() else entry for entry in evaluate.also]
    evaluate = evaluate.model_copy(update={"also": others})
    seen = [path for entry in others if Path(entry).is_dir() for path in (Path(entry), Path(entry).resolve())]
    if prepare.source and Path(prepare.root_dir).is_dir():
        root = Path(prepare.root_dir).resolve()
        prepare = prepare.model_copy(update={"root_dir": str(root)})
        seen += [root, (root / prepare.dataset_name).resolve()]  # may be a link to another disk
    for key, weights in (("pretrained", train.pretrained), ("init_from", train.init_from)):
        if weights and (Path(weights).is_file() or (key == "init_from" and Path(weights).is_dir())):
            seen.append(Path(weights).resolve())
            train = train.model_copy(update={key: str(seen[-1])})
    mounts = [path for path in dict.fromkeys(seen) if not any(other in path.parents for other in seen)]
    return params.model_copy(update={"prepare": prepare, "train": train, "evaluate": evaluate}), mounts


def check_engine(image: str) -> None:
    """Check that a Docker engine answers and has `image`, and pull the image if not.

    Raises:
        UserError: No engine answers, or the image is missing and cannot be pulled.
    """
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise UserError(f"no Docker engine answers ({error}); start Docker, or use run-local") from None
    with contextlib.closing(client):
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            _pull(client, image)


def _pull(client: Any, image: str) -> None:
    import docker

    print(f"pulling {image}", flush=True)
    try:
        client.images.pull(image)
    except docker.errors.APIError as error:
        reason = error.explanation or error
        raise UserError(
            f"image {image} is not here and cannot be pulled ({reason}); build it with `make image`"
        ) from None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for the subprocesses that start in the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _folder_of_its_own(root: Path) -> Path:
    """Make a new folder for one run, so that runs started at the same time do not share one."""
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y%m%d-%H%M%S}-", dir=root))


@contextlib.contextmanager
def tracking_server() -> Iterator[str]:
    """Yield the address of an MLflow server: the configured one, or a temporary one for the project's store."""
    uri = tracking_uri()
    if uri.startswith("http"):
        yield uri
        return
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", address.rpartition(":")[2], "--artifacts-destination", "mlartifacts", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(address, server)
            yield address
        finally:
            server.terminate()


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy is not for loopback addresses
    deadline = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), direct.open(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UserError(f"MLflow's server did not start at {address}; try `make mlflow`, and set MLFLOW_TRACKING_URI to it")


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
