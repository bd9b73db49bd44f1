"""Submit a compiled pipeline to a Kubeflow Pipelines server, and follow its run.

Whatever can be known before the first request is checked before it, and the run is created by the last one.
"""

import difflib
import json
import os
import re
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
import yaml
from google.protobuf import json_format
from kfp import client as kfp_client
from kfp.pipeline_spec import pipeline_spec_pb2

from irra.errors import UserError

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
POLL_SECONDS = 5.0
LOST_POLLS = 60  # five minutes without a server
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
EXACT = 2**53  # KFP carries every number as a double
# What a server reports beside the tasks that the user wrote: drivers, the pod inside a task, its tries, the graph.
INNER_TASK = re.compile(r"(.+-driver|executor|root)(\(.*\))?")
IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True)
class Server:
    """A Kubeflow Pipelines server and how to get in.

    `host` is the address in the browser without what follows `#`; empty: the variable KF_PIPELINES_ENDPOINT.
    A bearer token comes from `token_file`, which is read again for every request, or from the variable
    KF_PIPELINES_TOKEN; the session cookie of a login page (`name=value`) from KF_PIPELINES_COOKIE. None is ever shown.
    """

    host: str = ""
    namespace: str | None = None  # of the user's profile, where several users share a server
    token_file: Path | None = None
    ca_certificate: Path | None = None  # PEM; a certificate of the system's own store is not known to kfp


@dataclass(frozen=True)
class Submission:
    """A run on the server; `state` and `failure` are those of its end when it was waited for."""

    run_id: str
    address: str
    state: str | None = None
    failure: str | None = None


class NoAnswer(UserError):
    """The server did not answer, or not well: it may do so later."""


class NotFound(UserError):
    """The server does not have what was asked for."""


def submit(
    package: Path,
    server: Server,
    *,
    experiment: str,
    run_name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    enable_caching: bool = True,
    mlflow: Mapping[str, Any] | None = None,
    wait: bool = False,
) -> Submission:
    """Create a run of `package`, print its address, and with `wait` follow it to its end.

    `arguments` may be text, as a command line gives it, or typed. `enable_caching=False` runs every task again, also
    inside loops and branches; otherwise each task does what it was compiled with. `mlflow` overrides the settings of
    the server's MLflow plugin, such as `{"disabled": True}`. UserError for all that can go wrong; but a run that fails
    is a `Submission` whose `failure` says what failed.
    """
    spec, platform = read_package(package)
    values = typed_arguments(package, spec, arguments or {})
    if pipeline_root is not None and "://" not in pipeline_root:
        raise UserError(f"pipeline root {pipeline_root!r}: an address such as s3://bucket/folder is needed")
    if not enable_caching:
        _disable_caching(spec)
    client = Client(server)
    client.check_api()
    body = kfp_server_api.V2beta1Run(
        experiment_id=client.experiment_id(experiment),
        display_name=run_name or f"{spec['pipelineInfo']['name']} {datetime.now():%Y-%m-%d %H:%M:%S}",
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform} if platform else spec,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=values, pipeline_root=pipeline_root),
        service_account=service_account,
        plugins_input={"mlflow": dict(mlflow)} if mlflow is not None else None,
    )
    submission = client.create_run(body)
    print(f"run {submission.run_id}: {submission.address}", flush=True)
    return follow(client, submission) if wait else submission


def check_image(image: str) -> None:
    """UserError unless `image` has a digest or a tag other than `latest`.

    KFP's cache keys hold the image's name, so under a name that moves, results of other code would be taken.
    """
    match = IMAGE.fullmatch(image)
    if not match:
        raise UserError(f"image {image!r} is not a reference such as registry/name:tag")
    if not match["digest"] and match["tag"] in (None, "latest"):
        raise UserError(
            f"image {image!r} has {'the moving tag latest' if match['tag'] else 'no tag'}, and cached results of other "
            "code would be taken for its own; tag it by commit, such as name:1a2b3c4"
        )


def read_package(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline spec and the platform spec (empty when there is none) of a compiled pipeline.

    UserError when the file is missing, no YAML, or something else than a compiled pipeline.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there: compile the pipeline first")
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
        if len(documents) not in (1, 2) or not all(isinstance(document, dict) for document in documents):
            raise ValueError("one or two documents of keys and values are needed")
        spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        platform = json_format.ParseDict(dict(*documents[1:]), pipeline_spec_pb2.PlatformSpec())
        if not spec.pipeline_info.name or not spec.root.dag.tasks:
            raise ValueError("it has no name or no tasks")
    except (yaml.YAMLError, json_format.ParseError, ValueError) as error:
        raise UserError(f"{path} is not a compiled pipeline: {' '.join(str(error).split())}") from error
    return json_format.MessageToDict(spec), json_format.MessageToDict(platform)


def typed_arguments(package: Path, spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` with the types that the pipeline defines; UserError for an unknown, a wrong or a missing one."""
    defined = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in arguments:
        if name not in defined:
            close = difflib.get_close_matches(name, defined, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(defined)) or 'none'}"
            raise UserError(f"{package} has no parameter {name!r}; {hint}")
    for name, definition in defined.items():
        if name not in arguments and "defaultValue" not in definition and not definition.get("isOptional"):
            raise UserError(f"{package}: parameter {name!r} has no default, so it needs a value")
    return {name: _typed(package, name, value, defined[name]["parameterType"]) for name, value in arguments.items()}


def _typed(package: Path, name: str, value: Any, kind: str) -> Any:
    wrong = UserError(f"{package}: parameter {name!r} is {kind}, found {value!r}")
    try:
        if isinstance(value, str) and kind != "STRING":
            value = json.loads(value.lower() if kind == "BOOLEAN" else value)
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if not isinstance(value, TYPES.get(kind, object)) or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise wrong
    if isinstance(value, int) and abs(value) > EXACT:
        raise UserError(f"{package}: parameter {name!r} is {value}, and KFP keeps integers only up to {EXACT}")
    return value


def _disable_caching(spec: Mapping[str, Any]) -> None:
    """In every graph: kfp's own option reaches the outermost alone, not the tasks of loops and branches."""
    for component in (spec["root"], *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}  # without enableCache, which is how false is written


class Client(kfp_client.Client):  # type: ignore[misc]
    """kfp's client, quiet and bounded: one attempt and a time limit for every request, and no file of its own.

    kfp would try five times with a traceback each, follow a redirect to a login page, wait for ever for a silent
    server, and take a namespace and a cookie from ~/.config/kfp/context.json.
    """

    def __init__(self, server: Server) -> None:
        host = _host(server)
        self._namespace = server.namespace or ""
        if server.ca_certificate:
            _check_certificate(server.ca_certificate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(
                host=host,
                ssl_ca_cert=server.ca_certificate and str(server.ca_certificate),
                **_credentials(server),
            )

    def _load_config(self, *arguments: Any) -> Any:
        config = super()._load_config(*arguments)
        config.retries = urllib3.Retry(0, raise_on_redirect=False)
        return config

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": self._namespace}

    def set_user_namespace(self, namespace: str) -> None:
        """For this client only: kfp calls it with a pod's own namespace, and would write it to a file."""
        self._context_setting["namespace"] = namespace.strip()

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """What the server says of itself."""
        try:
            return self.ask(self._healthz_api.healthz_service_get_healthz)
        except NotFound as error:
            why = "is it KFP 1, or does the path lack, such as /pipeline?"
            raise UserError(f"{error}; the API of KFP 2 (v2beta1) is not there: {why}") from error

    def ask(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """The answer to one request; NoAnswer when there is none, UserError when it is a refusal or not KFP's."""
        host = self._existing_config.host
        try:
            answer = method(*arguments, _request_timeout=(CONNECT_SECONDS, ANSWER_SECONDS), **keywords)
        except kfp_server_api.ApiException as error:
            raise _refusal(host, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(host, error) from error
        except ValueError as error:
            raise UserError(f"{host} gave an answer that kfp does not understand: {error}") from error
        headers = self._run_api.api_client.last_response.urllib3_response.headers
        if "json" not in headers.get("content-type", ""):
            raise UserError(f"{host} answers with a page, not as Kubeflow Pipelines: a login page or another service?")
        return answer

    def check_api(self) -> None:
        """UserError unless this is a server of KFP 2, and it is known which namespace to use."""
        host, several_users = self._existing_config.host, self.get_kfp_healthz().multi_user
        if several_users is None:
            raise UserError(f"{host} does not answer as Kubeflow Pipelines does; is it another service?")
        if several_users and not self.get_user_namespace():
            raise UserError(f"{host} has several users: give the namespace of your profile")

    def experiment_id(self, name: str) -> str:
        """The id of the experiment `name`, which is created when there is none."""
        namespace = self.get_user_namespace()
        same_name = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
        found = self.ask(
            self._experiment_api.experiment_service_list_experiments,
            filter=json.dumps(same_name),
            namespace=namespace,
        ).experiments
        if found:
            return str(found[0].experiment_id)
        body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=namespace or None)
        return str(self.ask(self._experiment_api.experiment_service_create_experiment, experiment=body).experiment_id)

    def create_run(self, body: Any) -> Submission:
        """Create a run; its address is that of the UI, at KF_PIPELINES_UI_ENDPOINT when that is another."""
        pages = f"{self._get_url_prefix().rstrip('/')}/#/runs"
        try:
            run = self.ask(self._run_api.run_service_create_run, run=body)
        except NoAnswer as error:
            raise UserError(f"{error}; it may have created the run all the same: look at {pages} first") from error
        return Submission(run.run_id, f"{pages}/details/{run.run_id}")

    def get_run(self, run_id: str) -> Any:
        """A run with its tasks."""
        return self.ask(self._run_api.run_service_get_run, run_id=run_id)


def follow(client: Client, submission: Submission) -> Submission:
    """Print a line for every change of state until the run ends; a server may be away for some minutes."""
    shown: set[tuple[str, str, str]] = set()
    for run in _polls(client, submission):
        states = [(task.task_id, f"task {task.display_name}", task.state or "PENDING") for task in _tasks(run)]
        for line in [("", "run", run.state or "PENDING"), *states]:
            if line not in shown:
                print(f"{datetime.now():%H:%M:%S}", *line[1:], flush=True)
                shown.add(line)
        if run.state in ENDED:
            failure = _failure(run) if run.state in ("FAILED", "CANCELED") else None
            return Submission(submission.run_id, submission.address, run.state, failure)
    raise AssertionError("polls end with the run")


def _polls(client: Client, submission: Submission) -> Iterator[Any]:
    lost = 0
    while True:
        try:
            yield client.get_run(submission.run_id)
            lost = 0
        except UserError as error:
            lost += 1
            if lost > LOST_POLLS or not isinstance(error, NoAnswer):
                raise UserError(f"{error}; the run goes on: {submission.address}") from error
            if lost == 1:
                print(f"{datetime.now():%H:%M:%S} {error}; asking again", flush=True)
        time.sleep(POLL_SECONDS)


def _tasks(run: Any) -> list[Any]:
    """The tasks that the user wrote; the workflow itself is known by its pods, `<workflow>-<number>`."""
    every = [task for task in (run.run_details and run.run_details.task_details) or [] if task.display_name]
    pods = {child.pod_name or "" for task in every for child in task.child_tasks or []}
    workflows = {pod.rpartition("-")[0] for pod in pods}
    names = {task.display_name for task in every} - workflows
    return [task for task in every if task.display_name in names and not INNER_TASK.fullmatch(task.display_name)]


def _failure(run: Any) -> str:
    """Failed tasks with their messages, which most servers leave empty."""
    failed = [task for task in _tasks(run) if task.state == "FAILED"]
    lines = [f"task {task.display_name} failed" + (f": {task.error.message}" if task.error else "") for task in failed]
    return "; ".join(dict.fromkeys(lines)) or (run.error and run.error.message) or f"the run is {run.state}"


def _host(server: Server) -> str:
    host = (server.host or os.environ.get(kfp_client.client.KF_PIPELINES_ENDPOINT_ENV, "")).rstrip("/")
    try:
        parts = urlsplit(host)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise UserError(f"host {host!r}: an address such as https://kubeflow.example.com/pipeline is needed")
    return host


def _credentials(server: Server) -> dict[str, Any]:
    """Arguments of kfp.Client that open the door."""
    keys: dict[str, Any] = {}
    if cookie := os.environ.get("KF_PIPELINES_COOKIE"):
        keys["cookies"] = _one_line("variable KF_PIPELINES_COOKIE", cookie)
    if server.token_file:
        try:
            _one_line(f"token file {server.token_file}", server.token_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"token file {server.token_file}: {error}") from error
        keys["credentials"] = kfp_client.ServiceAccountTokenVolumeCredentials(str(server.token_file))
    elif token := os.environ.get("KF_PIPELINES_TOKEN"):
        keys["existing_token"] = _one_line("variable KF_PIPELINES_TOKEN", token)
    return keys


def _one_line(where: str, secret: str) -> str:
    """Whatever cannot stand in a header is refused here, or the error of the HTTP library would show it."""
    secret = secret.strip()
    if not (secret and secret.isascii() and secret.isprintable() and not secret.startswith("Bearer ")):
        raise UserError(f"{where} must hold one line: the secret alone, without 'Bearer'")
    return secret


def _check_certificate(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"certificate {path}: a PEM file is needed ({error})") from error


def _no_answer(host: str, error: urllib3.exceptions.HTTPError) -> UserError:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.SSLError):
        unknown = "CERTIFICATE_VERIFY_FAILED" in str(reason)
        remedy = "give the certificate of its authority as a PEM file" if unknown else "is it an http:// address?"
        return UserError(f"{host}: {reason}; {remedy}")
    return NoAnswer(f"no answer from {host}: {str(reason).rpartition(': ')[2]}")


def _refusal(host: str, error: Any) -> UserError:
    """What an HTTP status other than 200 means, with the server's own words."""
    message = f"{host} answers {error.status} {error.reason}{_words(error)}"
    if error.status in (301, 302, 303, 307, 308):
        to = error.headers.get("location", "elsewhere")
        return UserError(f"{host} redirects to {to}: give that address, or a token or cookie when it is a login page")
    if error.status in (401, 403):
        return UserError(f"{message}; is the token or cookie still valid, and the namespace yours?")
    if error.status == 404:
        return NotFound(message)
    return NoAnswer(message) if error.status == 429 or error.status >= 500 else UserError(message)


def _words(error: Any) -> str:
    """The message of a JSON answer; a page of HTML has none worth showing."""
    try:
        answer = json.loads(error.body)
        return f": {answer.get('message') or answer.get('error')}"
    except (ValueError, TypeError, AttributeError):
        return ""
