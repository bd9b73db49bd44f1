"""A Kubeflow Pipelines server for tests: the v2beta1 API over real HTTP, as strict as the real one, without a cluster.

    with kfp_api() as api:
        submit(package, Server(api.host), experiment="irra")
        assert api.runs[0].parameters == {...}

It answers as a server of version 2.17 did (recordings/, workflow.py). It checks every body against the models of
`kfp_server_api` (no unknown field, no wrong type), the pipeline against KFP's own messages, and run-time parameters
against the pipeline's definitions, and refuses what is wrong with 400.
"""

import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_server_api import models

from tests.pipeline.kfp_catalog import Catalog, uploaded_file
from tests.pipeline.workflow import Workflow

ROOT = "/apis/v2beta1"
RECORDINGS = Path(__file__).with_name("recordings")
PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "object": (object,),
    "datetime": (str,),
}
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
PARAMETER_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


def recording(name: str) -> list[dict[str, Any]]:
    """Return what a real server answered, poll after poll, when a run was followed (one poll: when it had ended)."""
    answers: list[dict[str, Any]] = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    return answers


def recorded_log(name: str) -> str:
    """Return the log of the pod that failed in a recorded run."""
    return (RECORDINGS / f"{name}.log").read_text(encoding="utf-8")


class Refused(Exception):
    """A refusal: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An answer that KFP would not give, sent after `seconds`."""

    status: int = 200
    body: str = "<html><title>Sign in</title></html>"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/html; charset=utf-8"})
    seconds: float = 0.0


@dataclass
class Run:
    """A run as the server keeps it: the body of the request and the two documents in it."""

    run_id: str
    body: dict[str, Any]
    pipeline: dict[str, Any]
    platform: dict[str, Any]
    polls: int = 0

    @property
    def parameters(self) -> dict[str, Any]:
        values: dict[str, Any] = self.body.get("runtime_config", {}).get("parameters", {})
        return values

    @property
    def tasks(self) -> list[str]:
        """The names of all tasks, also of those inside loops and branches."""
        components = (self.pipeline["root"], *self.pipeline.get("components", {}).values())
        return sorted(name for component in components for name in component.get("dag", {}).get("tasks", {}))


@dataclass
class KfpApi:
    """The server's state, which tests read and change while it runs.

    `misbehave["POST /runs"]` replaces the server's own answer. Each poll of a run gets the next one of `states`, or of
    the answers recorded for it. While a run is RUNNING, its first task that is not cached is.
    """

    host: str = ""
    version: str = "2.17.0"
    multi_user: bool = False
    token: str | None = None
    cookie: str | None = None
    states: Sequence[str] = ("PENDING", "RUNNING", "SUCCEEDED")
    failing_task: str | None = None
    cached: Sequence[str] = ()
    pending: bool = False  # the pod of the running task waits
    attempts: bool = True  # False: a server up to 2.16
    logs: dict[str, str] = field(default_factory=dict)  # by task, or by pod; the last line may have no end
    recorded: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # answers, by run id
    misbehave: dict[str, Answer] = field(default_factory=dict)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    catalog: Catalog = field(default_factory=Catalog)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path and query, headers

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> dict[str, Any] | str:
        """Answer one request with JSON or plain text: the routes of the API."""
        match method, path.removeprefix(ROOT).strip("/").split("/"):
            case "GET", ["apis", "v1alpha1", "runs", run_id, "nodes", node, "log"]:
                return self.get_log(run_id, node)
            case "GET", ["healthz"]:
                store = {"multi_user": self.multi_user, "pipeline_store": "database"}
                return {"commit_sha": "unknown", "tag_name": self.version, **store}
            case "GET", ["experiments"]:
                return self.list_experiments(query)
            case "POST", ["experiments"]:
                return self.create_experiment(body)
            case "POST", ["runs"]:
                return self.create_run(body)
            case "GET", ["runs", run_id]:
                return self.get_run(run_id)
            case _, ["pipelines" | "recurringruns", *_]:
                return self.catalog.answer(self, method, path, query, body)
        raise Refused(404, "Not Found")

    def list_experiments(self, query: Mapping[str, str]) -> dict[str, Any]:
        namespace = query.get("namespace", "")
        self.check_namespace(namespace)
        found = [e for e in self.experiments if e["namespace"] == namespace and matches(e, query.get("filter"))]
        return {"experiments": found, "total_size": len(found)} if found else {}  # the API leaves out empty fields

    def create_experiment(self, body: Any) -> dict[str, Any]:
        check_model(body, "V2beta1Experiment")
        namespace = body.get("namespace", "")
        self.check_namespace(namespace)
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: Experiment name is empty")
        if any(e["display_name"] == body["display_name"] and e["namespace"] == namespace for e in self.experiments):
            raise Refused(409, f"Already exist error: experiment {body['display_name']}")
        self.experiments.append({**body, "experiment_id": str(uuid.uuid4()), "namespace": namespace})
        return self.experiments[-1]

    def create_run(self, body: Any) -> dict[str, Any]:
        check_model(body, "V2beta1Run")
        if "plugins_output" in body:
            raise Refused(400, "plugins_output must not be set by the client")
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: The run name is empty. Please specify a valid name")
        if body.get("experiment_id") not in [experiment["experiment_id"] for experiment in self.experiments]:
            raise Refused(404, f"ResourceNotFoundError: Experiment {body.get('experiment_id')} not found")
        pipeline, platform = self.catalog.documents_of(body) or documents(body.get("pipeline_spec", {}))
        run = Run(str(uuid.uuid4()), body, pipeline, platform)
        check_parameters(run)
        self.runs.append(run)
        return self.as_message(run, "PENDING")

    def get_run(self, run_id: str) -> dict[str, Any]:
        if answers := self.recorded.get(run_id):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        run = self.find_run(run_id)
        state = self.states[min(run.polls, len(self.states) - 1)]
        run.polls += 1
        return self.as_message(run, state)

    def find_run(self, run_id: str) -> Run:
        for run in self.runs:
            if run.run_id == run_id:
                return run
        raise Refused(404, f"Failed to get a run: ResourceNotFoundError: Run {run_id} not found")

    def as_message(self, run: Run, state: str) -> dict[str, Any]:
        created, never = "2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z"
        times = {"created_at": created, "scheduled_at": created, "finished_at": created if state in ENDED else never}
        message = {**run.body, "run_id": run.run_id, "state": state, **times}
        details = [] if state == "PENDING" else self.workflow(run, state).details()
        return {**message, "run_details": {"task_details": details}} if details else message

    def workflow(self, run: Run, state: str) -> Workflow:
        return Workflow(
            f"{run.pipeline['pipelineInfo']['name']}-x7k2p",
            run.pipeline,
            running=state not in ENDED,
            pending=self.pending,
            failing=self.failing_task if state == "FAILED" else None,
            cached=self.cached,
            items=len(run.parameters.get("trainings", [])) or 1,
            attempts=self.attempts,
        )

    def get_log(self, run_id: str, node: str) -> str:
        pods: dict[str, str] = {}
        if run_id not in self.recorded:
            workflow = self.workflow(run := self.find_run(run_id), self.states[min(run.polls, len(self.states)) - 1])
            workflow.details()
            pods = workflow.pods
        log = self.logs.get(node, self.logs.get(pods.get(node, "")))
        if log is None:
            raise Refused(500, f'Failed to read logs for run {run_id}: pods "{node}" not found')
        return log

    def check_namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refused(400, "Invalid input error: An experiment cannot have an empty namespace in multi-user mode")


def check_model(data: Any, kind: str, where: str = "") -> None:
    """Refuse `data` unless it is a message of the type `kind`; the real gateway does so too."""
    if kind in PLAIN:
        fits = isinstance(data, PLAIN[kind]) and (kind in ("bool", "object") or not isinstance(data, bool))
    elif match := re.fullmatch(r"(list\[|dict\(str, )(.*)[])]", kind):
        fits = isinstance(data, list if kind.startswith("list") else dict)
        for key, item in (data.items() if isinstance(data, dict) else enumerate(data)) if fits else ():
            check_model(item, match[2], f"{where}.{key}")
    else:
        model = getattr(models, kind)
        allowed = getattr(model, "allowable_values", None)
        fits = data in allowed if allowed else isinstance(data, dict)
        if fits and not allowed:
            types = {model.attribute_map[name]: type_ for name, type_ in model.openapi_types.items()}
            for key, item in data.items():
                if key not in types:
                    raise Refused(400, f'proto: unknown field "{key}" in {where or kind}')
                check_model(item, types[key], f"{where}.{key}")
    if not fits:
        raise Refused(400, f"proto: invalid value for {kind} field {where.strip('.')}: {json.dumps(data)[:100]}")
    if not where:  # kfp's own reader also checks enums and dates
        try:
            kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(data)), kind)
        except (ValueError, kfp_server_api.ApiException) as error:
            raise Refused(400, f"proto: {error}") from error


def documents(sent: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline spec and the platform spec of a request, checked as the server checks them."""
    pipeline = sent.get("pipeline_spec", sent)
    platform = sent.get("platform_spec", {})
    try:
        spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        executors = spec.deployment_spec["executors"] if pipeline.get("deploymentSpec") else {}
        configs = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        for name, config in configs.items():
            json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
            if name not in executors:
                raise Refused(400, f"Invalid input error: platform spec names unknown executor {name}")
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid input error: invalid v2 pipeline spec: {error}") from error
    if spec.schema_version != "2.1.0" or not spec.pipeline_info.name or not spec.root.dag.tasks:
        raise Refused(400, "Invalid input error: invalid v2 pipeline spec: schema version 2.1.0, name and root needed")
    return pipeline, platform


def check_parameters(run: Run) -> None:
    """Check names, presence and types of run-time parameters, as the server does."""
    defined = run.pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
    if extra := run.parameters.keys() - defined.keys():
        raise Refused(400, f"Invalid input error: parameter(s) provided are not required by pipeline: {sorted(extra)}")
    for name, definition in defined.items():
        value = run.parameters.get(name, definition.get("defaultValue"))
        if name not in run.parameters and (value is not None or definition.get("isOptional")):
            continue
        kind = definition["parameterType"]
        if not isinstance(value, PARAMETER_TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise Refused(400, f"Invalid input error: input parameter {name} requires type {kind}, found {value!r}")


def matches(experiment: Mapping[str, Any], text: str | None) -> bool:
    """Whether an experiment passes a filter of the API. Only equality is supported."""
    for predicate in json.loads(text or "{}").get("predicates", []):
        if predicate["operation"] not in (1, "EQUALS"):
            raise Refused(400, f"Invalid input error: operation {predicate['operation']}")
        wanted = predicate.get("stringValue", predicate.get("string_value"))
        if experiment.get(predicate["key"]) != wanted:
            return False
    return True


class Handler(BaseHTTPRequestHandler):
    """HTTP around `KfpApi.answer`."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: otherwise the client's system acknowledges the first only after 40 ms
    server: "Http"

    def do_GET(self) -> None:
        self.handle_request()

    def do_POST(self) -> None:
        self.handle_request()

    def do_DELETE(self) -> None:
        self.handle_request()

    def handle_request(self) -> None:
        api, parts = self.server.api, urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        api.requests.append((self.command, self.path, dict(self.headers.items())))
        trick = api.misbehave.get(f"{self.command} {parts.path.removeprefix(ROOT)}") or api.misbehave.get("*")
        if trick:
            self.server.stopped.wait(trick.seconds)
            return self.reply(trick.status, trick.body, trick.headers)
        try:
            self.check_identity()
            query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            body = uploaded_file(self.headers, text) or json.loads(text or "null")
            status, data = 200, api.answer(self.command, parts.path, query, body)
        except Refused as error:
            status, data = error.status, {"error": str(error), "code": 3, "message": str(error), "details": []}
            if parts.path.endswith("/log"):
                data = {"error_message": str(error), "error_details": str(error)}
        if isinstance(data, str):
            return self.reply(status, data, {"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
        self.reply(status, json.dumps(data), {"Content-Type": "application/json"})

    def check_identity(self) -> None:
        api = self.server.api
        token_ok = api.token is None or self.headers.get("Authorization") == f"Bearer {api.token}"
        if not token_ok or (api.cookie is not None and self.headers.get("Cookie") != api.cookie):
            raise Refused(401, "Unauthenticated: there is no user identity header")

    def reply(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Log nothing; tests read `KfpApi.requests`."""


class Http(ThreadingHTTPServer):
    """A server on a free port of this machine."""

    daemon_threads = True

    def __init__(self, api: KfpApi) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api, self.stopped = api, threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that gave up on a slow answer."""


@contextmanager
def kfp_api(certificate: Path | None = None, **settings: Any) -> Iterator[KfpApi]:
    """Run a server. `certificate`: a PEM file with key and certificate, for https; `settings`: those of `KfpApi`."""
    api = KfpApi(**settings)
    server = Http(api)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    api.host = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
