"""A Kubeflow Pipelines server: kfp's client, with one clear message for every way in which a request can fail."""

import json
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kfp_server_api
import urllib3
from kfp import client as kfp_client

from irra.utils.errors import UserError
from pipeline.kfp_quirks import QuietClient

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60


@dataclass(frozen=True)
class Server:
    """A Kubeflow Pipelines server and the credentials for it.

    `host` is the address in the browser up to the `#`; if it is empty, KF_PIPELINES_ENDPOINT is used.
    A bearer token comes from `token_file`, which is read again for every request, or from KF_PIPELINES_TOKEN. The
    session cookie of a login page (`name=value`) comes from KF_PIPELINES_COOKIE. Credentials are never printed.
    """

    host: str = ""
    namespace: str | None = None  # the user's profile, if several users share the server
    token_file: Path | None = None
    ca_certificate: Path | None = None  # PEM file; kfp does not use the system's certificates


@dataclass(frozen=True)
class Submission:
    """A run on the server. `state` and `failure` are set only after waiting for its end."""

    run_id: str
    address: str
    state: str | None = None
    failure: str | None = None


class NoAnswer(UserError):
    """The server did not answer, or answered that it cannot now; it may later."""


class NotFound(UserError):
    """The server does not have what was requested."""


class NoRun(UserError):
    """The server does not have a run of that id, or not any more."""


class Client(QuietClient):
    """kfp's client that tries every request once, with a time limit, and turns failures into messages."""

    def __init__(self, server: Server) -> None:
        host = _host(server)
        if server.ca_certificate:
            _check_certificate(server.ca_certificate)
        super().__init__(
            server.namespace or "",
            host=host,
            ssl_ca_cert=server.ca_certificate and str(server.ca_certificate),
            **_credentials(server),
        )

    @property
    def host(self) -> str:
        """The server's address."""
        return str(self._existing_config.host)

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask the server once about itself. kfp calls this method too, and would try five times."""
        try:
            return self.ask(self._healthz_api.healthz_service_get_healthz)
        except NotFound as error:
            why = "is it KFP 1, or is a path such as /pipeline missing from the address?"
            raise UserError(f"{error}; the API of KFP 2 (v2beta1) is not there: {why}") from error

    def ask(self, method: Callable[..., Any], *arguments: Any, kind: str = "json", **keywords: Any) -> Any:
        """Send one request and return the answer, whose content type must be of a `kind`.

        Raises:
            NoAnswer: The server did not answer, or may answer later.
            NotFound: The server does not have what was requested.
            UserError: The server refused the request, or is not Kubeflow Pipelines.
        """
        host = self.host
        try:
            answer = method(*arguments, _request_timeout=(CONNECT_SECONDS, ANSWER_SECONDS), **keywords)
        except kfp_server_api.ApiException as error:
            raise _refusal(host, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(host, error) from error
        except ValueError as error:
            raise UserError(f"{host} gave an answer that kfp does not understand: {error}") from error
        headers = self._run_api.api_client.last_response.urllib3_response.headers
        if kind not in headers.get("content-type", ""):
            raise UserError(f"{host} answers with a web page: is it a login page, or another service?")
        return answer

    def check_api(self) -> str:
        """Check that the server runs KFP 2 and that the namespace is known.

        Returns:
            The server's version, such as "2.17.0"; a build of one's own may say anything.

        Raises:
            UserError: It does not, or the namespace is missing.
        """
        host, several_users = self.host, self.get_kfp_healthz().multi_user
        if several_users is None:
            raise UserError(f"{host} does not answer like Kubeflow Pipelines; is it another service?")
        if several_users and not self.get_user_namespace():
            raise UserError(f"{host} has several users: give the namespace of your profile")
        answer = json.loads(self._run_api.api_client.last_response.data)  # of which kfp drops what is not in its model
        return str(answer.get("tag_name", ""))

    def experiment_id(self, name: str) -> str:
        """Return the id of the experiment `name`, and create it if there is none."""
        namespace = self.get_user_namespace()
        found = self.ask(
            self._experiment_api.experiment_service_list_experiments,
            filter=same_name(name),
            namespace=namespace,
        ).experiments
        if found:
            return str(found[0].experiment_id)
        body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=namespace or None)
        return str(self.ask(self._experiment_api.experiment_service_create_experiment, experiment=body).experiment_id)

    def create_run(self, body: Any) -> Submission:
        """Create a run. Its address is in the UI, which KF_PIPELINES_UI_ENDPOINT names if it is not at the host.

        Raises:
            UserError: The server refused, or did not answer and may have created the run all the same.
        """
        try:
            run = self.ask(self._run_api.run_service_create_run, run=body)
        except NoAnswer as error:
            raise UserError(f"{error}; the run may exist all the same: look at {self._pages()} first") from error
        return self.submission(run.run_id)

    def submission(self, run_id: str) -> Submission:
        """Return a run that exists, with its address."""
        return Submission(run_id, f"{self._pages()}/details/{run_id}")

    def _pages(self) -> str:
        return f"{self._get_url_prefix().rstrip('/')}/#/runs"

    def get_run(self, run_id: str) -> Any:
        """Return a run with its tasks.

        Raises:
            NoRun: The server has no such run.
            UserError: See `ask`.
        """
        try:
            return self.ask(self._run_api.run_service_get_run, run_id=run_id)
        except NotFound as error:
            if run_id not in str(error):  # then it is not the run that is missing, but KFP at this address
                raise
            raise NoRun(f"{self.host} has no run {run_id}") from error

    def get_log(self, run_id: str, node: str) -> str:
        """Return the log of a pod, given the id of its node in the workflow.

        Once a pod is gone, its log is found under the id. While it lives, under its name, in which Argo puts the
        template before the number.

        Raises:
            UserError: There is no log, or the server refuses to show it.
        """
        workflow, _, number = node.rpartition("-")
        templates = ("system-container-impl", "retry-system-container-impl")
        try:
            return self._get_log(run_id, node)
        except UserError as error:
            for template in templates:
                with suppress(UserError):
                    return self._get_log(run_id, f"{workflow}-{template}-{number}")
            raise error

    def _get_log(self, run_id: str, pod: str) -> str:
        """The API's definition, from which kfp's client is made, lacks this route."""
        client = self._run_api.api_client
        path = f"/apis/v1alpha1/runs/{quote(run_id)}/nodes/{quote(pod)}/log"
        self.ask(client.call_api, path, "GET", auth_settings=["Bearer"], response_type=None, kind="text/plain")
        return str(client.last_response.data)


def same_name(name: str) -> str:
    """Return the filter of the API for a name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _host(server: Server) -> str:
    host = (server.host or os.environ.get(kfp_client.client.KF_PIPELINES_ENDPOINT_ENV, "")).rstrip("/")
    if not host:
        raise UserError("no server is named: give --host (with make, KFP_HOST=https://...) or KF_PIPELINES_ENDPOINT")
    try:
        parts = urlsplit(host)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise UserError(f"host {host!r} is not an address such as https://kubeflow.example.com/pipeline")
    return host


def _credentials(server: Server) -> dict[str, Any]:
    """Return the arguments of kfp.Client that hold credentials."""
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
    """Refuse what an HTTP header cannot hold; the HTTP library's own error would print the secret."""
    secret = secret.strip()
    if not (secret and secret.isascii() and secret.isprintable() and not secret.startswith("Bearer ")):
        raise UserError(f"{where} must hold one line: the secret alone, without 'Bearer'")
    return secret


def _check_certificate(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"certificate {path} is not a usable PEM file ({error})") from error


def _no_answer(host: str, error: urllib3.exceptions.HTTPError) -> UserError:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.SSLError):
        unknown = "CERTIFICATE_VERIFY_FAILED" in str(reason)
        remedy = "give the certificate of its authority as a PEM file" if unknown else "is it an http:// address?"
        return UserError(f"{host}: {reason}; {remedy}")
    return NoAnswer(f"no answer from {host}: {str(reason).rpartition(': ')[2]}")


def _refusal(host: str, error: Any) -> UserError:
    """Explain an HTTP status other than 200, with the server's own message."""
    message = f"{host} answers {error.status} {error.reason}{_words(error)}"
    if error.status in (301, 302, 303, 307, 308):
        to = error.headers.get("location", "elsewhere")
        return UserError(f"{host} redirects to {to}: give that address, or a token or cookie if it is a login page")
    if error.status in (401, 403):
        return UserError(f"{message}; is the token or cookie still valid, and the namespace yours?")
    if error.status == 404:
        return NotFound(message)
    return NoAnswer(message) if error.status == 429 or error.status >= 500 else UserError(message)


def _words(error: Any) -> str:
    """Return the message of a JSON answer, and nothing for an HTML page."""
    try:
        answer = json.loads(error.body)
        return f": {answer.get('message') or answer.get('error') or answer['error_message']}"
    except (ValueError, TypeError, AttributeError, KeyError):
        return ""
