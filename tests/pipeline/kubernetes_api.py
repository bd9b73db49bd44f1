"""A Kubernetes API with Kubeflow Trainer for tests: over real HTTP, as strict as the real one, without a cluster.

    with kubernetes_api(manifests(cluster, "kubeflow")) as api:
        api.moments = [Moment(), Moment(pods=(Pod(0, "Running", ("epoch 1",)),)), Moment("Complete")]
        train(api.client(), job)

It has the objects that the manifests define, and grants the rights that they grant and no others. A TrainJob is checked
against the models of the SDK, and refused with 400 if it has an unknown field.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "kubeflow"
TRAINER = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
CREATED = "2026-01-01T00:00:00Z"
NAME = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}


class Refused(Exception):
    """A refusal: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Pod:
    """A pod of a TrainJob. A restart replaces it by one with another suffix."""

    node: int
    phase: str
    log: Sequence[str] = ()
    suffix: str = "aaaaa"


@dataclass(frozen=True)
class Moment:
    """What Kubernetes shows at one time: the condition of the TrainJob if it has ended, and its pods."""

    condition: str = ""
    pods: tuple[Pod, ...] = ()


@dataclass
class KubernetesApi:
    """The state of the cluster, which tests read and change. The next of `moments` comes with `advance`.

    `fail["GET trainjobs"]` holds statuses with which the next such requests fail. With `observe`, the moment is what it
    returns. Pods of a deleted TrainJob are there until the next `advance`, as in a real cluster; a TrainJob that is
    created before inherits the state of the one before it, as in a real cluster too.
    """

    manifests: Sequence[Mapping[str, Any]]
    host: str = ""
    moments: Sequence[Moment] = (Moment(),)
    observe: Callable[[], Moment] | None = None
    created: Callable[[dict[str, Any]], None] = lambda body: None
    deleted: Callable[[str], bool] = lambda name: False  # whether its pods are gone
    fail: dict[str, list[int]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    ending: dict[str, Moment] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    may_list_nodes: bool = True  # by a right of the cluster that no manifest of ours grants
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)  # of the TrainJobs that were created
    now: int = 0

    def client(self) -> Any:
        """Return the SDK's client for this cluster."""
        from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
        from kubernetes.client import Configuration

        configuration = Configuration(host=self.host)
        return TrainerClient(KubernetesBackendConfig(namespace=NAMESPACE, client_configuration=configuration))

    def advance(self) -> None:
        """Let time pass."""
        self.now, self.ending = self.now + 1, {}

    @property
    def moment(self) -> Moment:
        return self.observe() if self.observe else self.moments[min(self.now, len(self.moments) - 1)]

    def asked(self, method: str) -> list[str]:
        """Return the paths requested with `method`, without what only the SDK looks at first."""
        return [path for verb, path in self.requests if verb == method and "configmaps" not in path]

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        """Answer one request: the routes of the API."""
        if (method, path) == ("GET", "/api/v1/nodes") and self.may_list_nodes:
            return {"kind": "NodeList", "apiVersion": "v1", "items": self.nodes}
        resource = resource_of(path)
        if (failures := self.fail.get(f"{method} {resource}")) and (status := failures.pop(0)):
            raise Refused(status, "the test asked for it")
        verb = "list" if method == "GET" and path == f"{CORE}/pods" else VERBS[method]
        self.check_right(verb, resource, path)
        match method, path.removeprefix(TRAINER).removeprefix(CORE).strip("/").split("/"):
            case "GET", ["trainingruntimes", name]:
                return self.runtime(name)
            case "POST", ["trainjobs"]:
                return self.create(body)
            case "GET", ["trainjobs", name]:
                return self.job(name)
            case "DELETE", ["trainjobs", name]:
                return self.delete(name)
            case "GET", ["pods"]:
                return self.pods(query["labelSelector"])
            case "GET", ["pods", name, "log"] if query["container"] == "node":
                return self.log(name)
        raise Refused(404, "the server could not find the requested resource")

    def check_right(self, verb: str, resource: str, path: str) -> None:
        """Check that the Role grants it. It holds for this namespace alone, and not for a cluster's own objects."""
        (role,) = [manifest for manifest in self.manifests if manifest["kind"] == "Role"]
        group = "trainer.kubeflow.org" if path.startswith("/apis/trainer.kubeflow.org/") else ""
        granted = any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in role["rules"]
        )
        if not granted or f"/namespaces/{NAMESPACE}/" not in path:
            raise Refused(403, f'{resource} is forbidden: pipeline-runner cannot {verb} resource "{resource}"')

    def runtime(self, name: str) -> Mapping[str, Any]:
        runtimes = [manifest for manifest in self.manifests if manifest["kind"] == "TrainingRuntime"]
        found = [runtime for runtime in runtimes if runtime["metadata"]["name"] == name]
        if not found:
            raise Refused(404, f'trainingruntimes.trainer.kubeflow.org "{name}" not found')
        return found[0]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob as Model

        if Model.from_dict(body).to_dict() != body:  # type: ignore[union-attr]
            raise Refused(400, "unknown field")
        name = body["metadata"]["name"]
        if not NAME.fullmatch(name) or len(name) > 45:
            raise Refused(422, f"metadata.name: {name!r}")
        if body["spec"]["runtimeRef"] | {"apiGroup": ""} != {
            "apiGroup": "",
            "kind": "TrainingRuntime",
            "name": self.runtime(body["spec"]["runtimeRef"]["name"])["metadata"]["name"],
        }:
            raise Refused(422, "spec.runtimeRef")
        if name in self.jobs:
            raise Refused(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        body["metadata"] |= {"namespace": NAMESPACE, "creationTimestamp": CREATED}
        self.jobs[name] = body
        self.bodies.append(body)
        self.created(body)
        return body

    def job(self, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise Refused(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        moment = self.ending.get(name, self.moment)
        condition = {"type": moment.condition, "status": "True", "reason": "R", "message": "M"}
        ended = {"conditions": [condition | {"lastTransitionTime": CREATED}]} if moment.condition else {}
        return self.jobs[name] | {"status": ended}

    def delete(self, name: str) -> dict[str, Any]:
        self.ending[name] = self.job(name) and self.moment
        del self.jobs[name]
        if self.deleted(name):
            del self.ending[name]
        return {"kind": "Status", "status": "Success"}

    def pods(self, selector: str) -> dict[str, Any]:
        match = re.match("jobset.sigs.k8s.io/jobset-name=([^,]+)", selector)
        assert match, selector
        name = match[1]
        pods = self.ending[name].pods if name in self.ending else self.moment.pods if name in self.jobs else ()
        return {"kind": "PodList", "apiVersion": "v1", "items": [as_pod(name, pod) for pod in pods]}

    def log(self, pod_name: str) -> str:
        found = {as_pod(name, pod)["metadata"]["name"]: pod for name in self.jobs for pod in self.moment.pods}
        if pod_name not in found:
            raise Refused(404, f'pods "{pod_name}" not found')
        if found[pod_name].phase == "Pending":
            raise Refused(400, 'container "node" is waiting to start: ContainerCreating')
        return "".join(f"{line}\n" for line in found[pod_name].log)


def resource_of(path: str) -> str:
    """Return the kind of objects that a path is about, as a Role names it."""
    parts = path.split("/")
    kind = parts[parts.index("namespaces") + 2 if "namespaces" in parts else -2]
    return "pods/log" if parts[-1] == "log" else kind


def as_pod(job: str, pod: Pod) -> dict[str, Any]:
    labels = {
        "jobset.sigs.k8s.io/jobset-name": job,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": str(pod.node),
    }
    name = f"{job}-node-0-{pod.node}-{pod.suffix}"
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "creationTimestamp": CREATED},
        "spec": {"containers": [{"name": "node", "image": "irra"}]},
        "status": {"phase": pod.phase},
    }


class Handler(BaseHTTPRequestHandler):
    """HTTP around `KubernetesApi.answer`."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: otherwise the client's system acknowledges the first only after 40 ms
    server: "Http"

    def do_GET(self) -> None:
        api, parts = self.server.api, urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        api.requests.append((self.command, parts.path))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            status, found = 200, api.answer(self.command, parts.path, query, json.loads(text or "null"))
        except Refused as error:
            status, found = error.status, {"kind": "Status", "code": error.status, "message": str(error)}
        kind = "text/plain" if isinstance(found, str) else "application/json"
        body = (found if isinstance(found, str) else json.dumps(found)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, *arguments: Any) -> None:
        """Log nothing; tests read `KubernetesApi.requests`."""


class Http(ThreadingHTTPServer):
    """A server on a free port of this machine."""

    daemon_threads = True

    def __init__(self, api: KubernetesApi) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api


@contextmanager
def kubernetes_api(manifests: Sequence[Mapping[str, Any]]) -> Iterator[KubernetesApi]:
    """Run a server for a cluster to which `manifests` were applied."""
    api = KubernetesApi(manifests)
    server = Http(api)
    api.host = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
