"""Submitting through kfp's own client to a test server as strict as the real one."""

import datetime
import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kfp import client as kfp_client
from kfp import compiler, dsl, kubernetes
from kfp.dsl.executor_main import executor_main

from irra.utils.errors import UserError
from pipeline.package import check_image, has_registry
from pipeline.server import client as server_module
from pipeline.server.client import Client, Server, Submission
from pipeline.server.submit import ALL, submit
from tests.pipeline.kfp_api import Answer, KfpApi, Refused, Run, check_model, kfp_api

pytestmark = pytest.mark.xdist_group("submit")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def double(number: int) -> int:
    return 2 * number


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def show(number: int, text: str) -> str:
    return f"{text}{number}"


@dsl.pipeline(name="two-tasks")
def two_tasks(
    number: int,
    rate: float = 0.5,
    text: str = "x",
    flag: bool = False,
    names: list[str] = [],  # noqa: B006
    config: dict[str, Any] = {},  # noqa: B006
) -> None:
    doubled = double(number=number)
    kubernetes.set_image_pull_policy(doubled, "IfNotPresent")
    with dsl.If(flag == True):  # noqa: E712
        show(number=doubled.output, text=text)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "two_tasks.yaml"
    compiler.Compiler().compile(two_tasks, str(path))
    return path


@pytest.fixture
def api() -> Iterator[KfpApi]:
    with kfp_api() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll without waiting, and ignore the environment of the user who runs the tests."""
    monkeypatch.setattr("pipeline.server.follow.POLL_SECONDS", 0.0)
    for name in ("TOKEN", "COOKIE", "ENDPOINT", "UI_ENDPOINT"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)


def send(package: Path, api: KfpApi, **options: Any) -> Submission:
    options = {"experiment": "irra", "arguments": {"number": 3}, **options}
    return submit(package, options.pop("server", Server(api.host)), **options)


def refused(package: Path, api: KfpApi, **options: Any) -> str:
    """Submit, and return the message of the refusal; no run may be created."""
    with pytest.raises(UserError) as error:
        send(package, api, **options)
    assert not api.runs
    return str(error.value)


def test_a_run_has_both_documents_and_typed_parameters(package: Path, api: KfpApi) -> None:
    send(package, api, arguments={"number": "3", "flag": "True", "config": '{"a": [1]}', "text": "3"})
    (run,) = api.runs
    assert run.tasks == ["condition-1", "double", "show"]
    assert run.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert run.parameters == {"number": 3, "flag": True, "config": {"a": [1]}, "text": "3"}


def test_the_whole_request_reaches_the_server(package: Path, api: KfpApi) -> None:
    options = {"run_name": "r", "pipeline_root": "s3://b/f", "service_account": "a"}
    send(package, api, **options)
    body = api.runs[0].body
    assert (body["display_name"], body["service_account"]) == ("r", "a")
    assert body["runtime_config"]["pipeline_root"] == "s3://b/f"
    assert body["experiment_id"] == api.experiments[0]["experiment_id"]


def test_kfp_itself_would_send_the_same_pipeline(package: Path, api: KfpApi) -> None:
    with pytest.warns(FutureWarning):
        client = kfp_client.Client(api.host, namespace="any")
    client.create_run_from_pipeline_package(str(package), {"number": 3}, run_name="r", experiment_name="irra")
    send(package, api, run_name="r")
    theirs, ours = api.runs
    assert ours.body == theirs.body | {"experiment_id": ours.body["experiment_id"]}


def test_the_address_of_a_run_is_printed_and_returned(
    package: Path, api: KfpApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui.example.com/pipeline/")
    submission = send(package, api)
    address = f"https://ui.example.com/pipeline/#/runs/details/{api.runs[0].run_id}"
    assert submission == Submission(api.runs[0].run_id, address)
    assert capsys.readouterr().out == f"run {submission.run_id}: {address}\n"


def test_an_experiment_is_created_once(package: Path, api: KfpApi) -> None:
    for _ in range(2):
        send(package, api)
    send(package, api, experiment="other")
    assert [experiment["display_name"] for experiment in api.experiments] == ["irra", "other"]


def test_caching_is_switched_off_inside_branches_too(package: Path, api: KfpApi) -> None:
    send(package, api)
    send(package, api, again=ALL)
    cached, not_cached = [json.dumps(run.pipeline).count('"enableCache": true') for run in api.runs]
    assert (cached, not_cached) == (2, 0)


def arguments_of(run: Run) -> list[str]:
    arguments: list[str] = run.pipeline["deploymentSpec"]["executors"]["exec-double"]["container"]["args"]
    return arguments


def test_results_under_another_root_have_a_cache_of_their_own(
    package: Path, api: KfpApi, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (None, "s3://a/b", "s3://a/c", "s3://a/b"):
        send(package, api, pipeline_root=root)
    default, first, second, again = (arguments_of(run) for run in api.runs)
    assert default != first != second != default
    assert first == again
    warning = "warning: pipeline root s3://a/b: unless the ConfigMap kfp-launcher in the run's namespace"
    assert capsys.readouterr().err.count(warning) == 2


def test_a_task_runs_whatever_its_root(
    package: Path, api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root reaches kfp's executor as an argument that it does not know."""
    send(package, api, pipeline_root="s3://a/b")
    (tmp_path / "component.py").write_text(
        "from kfp.dsl import *\ndef double(number: int) -> int:\n    return 2 * number\n"
    )
    outputs = {"parameters": {"Output": {"outputFile": str(tmp_path / "2")}}, "outputFile": str(tmp_path / "out.json")}
    given = json.dumps({"inputs": {"parameterValues": {"number": 3}}, "outputs": outputs})
    arguments = [argument.replace("{{$}}", given) for argument in arguments_of(api.runs[0])]
    monkeypatch.setattr("sys.argv", ["kfp", "--component_module_path", str(tmp_path / "component.py"), *arguments])
    monkeypatch.setattr("kfp.dsl.executor_main._setup_logging", lambda: None)  # it would change this process's logging
    executor_main()
    assert json.loads((tmp_path / "out.json").read_text()) == {"parameterValues": {"Output": 6}}


@pytest.mark.parametrize(
    ("version", "warning"),
    [
        ("2.15.0", ""),
        ("v2.17.3", ""),
        ("2.18.0-rc.1", "runs Kubeflow Pipelines 2.18.0-rc.1: this was tested up to 2.17"),
        ("3.0.0", "runs Kubeflow Pipelines 3.0.0: this was tested up to 2.17"),
        ("unknown", "does not say which version of Kubeflow Pipelines it runs: 2.15 or later is needed"),
        ("", "does not say which version"),
    ],
)
def test_an_untested_server_is_warned_of(
    package: Path, api: KfpApi, capsys: pytest.CaptureFixture[str], version: str, warning: str
) -> None:
    api.version = version
    send(package, api)
    shown = capsys.readouterr().err
    assert f"warning: {api.host} {warning}" in shown if warning else not shown


@pytest.mark.parametrize("version", ["2.14.9", "2.5.0", "1.8.22"])
def test_a_server_that_is_too_old_is_refused_by_name(package: Path, api: KfpApi, version: str) -> None:
    api.version = version
    message = f"{api.host} runs Kubeflow Pipelines {version}: 2.15 or later is needed"
    assert refused(package, api) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numbr": 3}, "no parameter 'numbr'; did you mean 'number'?"),
        ({"zzz": 3}, "known are config, flag, names, number, rate, text"),
        ({}, "'number' has no default"),
        ({"number": "three"}, "'number' is NUMBER_INTEGER, found 'three'"),
        ({"number": 1.5}, "'number' is NUMBER_INTEGER, found 1.5"),
        ({"number": True}, "'number' is NUMBER_INTEGER, found True"),
        ({"number": 2**53 + 1}, "keeps integers exactly only up to"),
        ({"number": 1, "rate": "NaN"}, "'rate' is NUMBER_DOUBLE, found 'NaN'"),
        ({"number": 1, "text": 5}, "'text' is STRING, found 5"),
        ({"number": 1, "flag": "yes"}, "'flag' is BOOLEAN, found 'yes'"),
        ({"number": 1, "names": '{"a": 1}'}, "'names' is LIST"),
        ({"number": 1, "config": [1]}, "'config' is STRUCT"),
        ({"number": 1, "config": {"a": Path()}}, "'config' is STRUCT"),
    ],
)
def test_wrong_arguments_are_found_before_any_request(
    package: Path, api: KfpApi, arguments: Mapping[str, Any], message: str
) -> None:
    assert message in refused(package, api, arguments=arguments)
    assert not api.requests


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "compile the pipeline first"),
        ("", "one or two documents"),
        ("hello", "one or two documents"),
        ("a: [", "is not a compiled pipeline"),
        ("a: 1\n---\nb: 1\n---\nc: 1", "one or two documents"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow", "no field named"),
        ("pipelineInfo: {name: x}", "no name or no tasks"),
    ],
)
def test_a_file_that_is_not_a_compiled_pipeline_is_refused(
    tmp_path: Path, api: KfpApi, text: str | None, message: str
) -> None:
    path = tmp_path / "pipeline.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        submit(path, Server(api.host), experiment="e")
    assert not api.requests


@pytest.mark.parametrize("host", ["localhost:8080", "ftp://a", "http://", "http://a:b", "http://a/#/runs"])
def test_an_invalid_address_is_refused(package: Path, host: str) -> None:
    with pytest.raises(UserError, match="an address such as https"):
        submit(package, Server(host), experiment="e", arguments={"number": 1})


def test_the_host_may_come_from_the_environment(package: Path, api: KfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host + "/")
    send(package, api, server=Server())
    assert len(api.runs) == 1


def test_a_closed_port_is_named_at_once(package: Path, api: KfpApi) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert refused(package, api, server=Server(host)).startswith(f"no answer from {host}: ")


def test_a_host_that_does_not_resolve_is_named(package: Path, api: KfpApi) -> None:
    assert "no answer from http://nowhere.invalid" in refused(package, api, server=Server("http://nowhere.invalid"))


def test_a_silent_server_is_not_waited_for_long(package: Path, api: KfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ANSWER_SECONDS", 0.1)
    api.misbehave["GET /healthz"] = Answer(seconds=5)
    assert "Read timed out" in refused(package, api)
    assert len(api.requests) == 1


def test_the_message_says_when_a_run_may_exist_all_the_same(
    package: Path, api: KfpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "ANSWER_SECONDS", 0.3)
    api.misbehave["POST /runs"] = Answer(seconds=5)
    assert f"the run may exist all the same: look at {api.host}/#/runs first" in refused(package, api)


@pytest.mark.parametrize(
    ("request_line", "answer", "message"),
    [
        ("*", Answer(), "answers with a web page"),
        (
            "*",
            Answer(body="\xff\xfe", headers={"Content-Type": "text/html; charset=utf-16"}),
            "not understand|a web page",
        ),
        ("*", Answer(302, "", {"Location": "/dex/auth"}), "redirects to /dex/auth"),
        ("*", Answer(301, "", {"Location": "https://kfp/"}), "redirects to https://kfp/: give that address"),
        ("*", Answer(404), "404 Not Found; the API of KFP 2"),
        ("*", Answer(403, "RBAC: access denied", {"Content-Type": "text/plain"}), "403 Forbidden; is the token"),
        ("*", Answer(503, "", {"Retry-After": "3600"}), "answers 503"),
        ("*", Answer(200, '{"status": "ok"}', {"Content-Type": "application/json"}), "another service"),
        ("POST /runs", Answer(500, '{"message": "disk full"}'), "answers 500 Internal Server Error: disk full"),
        ("POST /runs", Answer(401, '{"message": "expired"}'), "401 Unauthorized: expired; is the token"),
        ("GET /experiments", Answer(), "answers with a web page"),
        ("POST /experiments", Answer(409, '{"message": "exists"}'), "409 Conflict: exists"),
    ],
)
def test_a_server_that_misbehaves_gives_one_clear_message(
    package: Path, api: KfpApi, request_line: str, answer: Answer, message: str
) -> None:
    api.misbehave[request_line] = answer
    text = refused(package, api)
    assert any(part in text for part in message.split("|"))
    assert "<html>" not in text
    assert "\n" not in text


def test_a_kfp_1_server_is_recognized(package: Path, api: KfpApi) -> None:
    api.misbehave["GET /healthz"] = Answer(404, '{"message": "Not Found"}', {"Content-Type": "application/json"})
    assert "404 Not Found: Not Found; the API of KFP 2 (v2beta1) is not there: is it KFP 1" in refused(package, api)


def test_a_shared_server_needs_a_namespace(package: Path, api: KfpApi) -> None:
    api.multi_user = True
    assert "give the namespace of your profile" in refused(package, api)
    send(package, api, server=Server(api.host, namespace="kubeflow"))  # kfp's default, which kfp itself ignores
    assert api.experiments[0]["namespace"] == "kubeflow"


def test_a_token_comes_from_the_environment_and_is_never_shown(
    package: Path, api: KfpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.token = "right-token"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong-token")
    assert "wrong-token" not in refused(package, api)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "right-token\n")
    send(package, api)


def test_a_token_file_is_read_again_for_every_request(package: Path, api: KfpApi, tmp_path: Path) -> None:
    file, api.token = tmp_path / "token", "first"
    file.write_text("first\n")
    client = Client(Server(api.host, token_file=file))
    client.check_api()
    file.write_text("second\n")
    api.token = "second"
    client.check_api()


@pytest.mark.parametrize("text", [None, "", "a\nb", "Bearer a", "ä"])
def test_a_token_file_without_a_token_is_refused(package: Path, api: KfpApi, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
    assert refused(package, api, server=Server(api.host, token_file=file)).startswith(f"token file {file}")


def test_a_cookie_opens_a_login_page(package: Path, api: KfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.cookie = "authservice_session=abc"
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "authservice_session=abc")
    send(package, api)


def self_signed(path: Path) -> Path:
    """Write a PEM file with a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    today = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), today)
    certificate = builder.not_valid_after(today + datetime.timedelta(1)).add_extension(address, False)
    pem = certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form) + pem)
    return path


def test_the_certificate_of_a_private_authority_can_be_given(package: Path, tmp_path: Path) -> None:
    pem = self_signed(tmp_path / "server.pem")
    with kfp_api(pem) as api:
        assert "give the certificate of its authority" in refused(package, api)
        (tmp_path / "not.pem").write_text("hello")
        assert "not.pem" in refused(package, api, server=Server(api.host, ca_certificate=tmp_path / "not.pem"))
        send(package, api, server=Server(api.host, ca_certificate=pem))


def test_https_to_a_plain_http_server_is_recognized(package: Path, api: KfpApi) -> None:
    assert refused(package, api, server=Server(api.host.replace("http", "https"))).endswith("is it an http:// address?")


def test_no_file_of_the_user_is_read_or_written(
    package: Path, api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tmp_path / "context.json"
    context.write_text('{"namespace": "stale", "client_authentication_cookie": "stale"}')
    (tmp_path / "namespace").write_text("pod-namespace\n")
    monkeypatch.setattr(kfp_client.Client, "_LOCAL_KFP_CONTEXT", str(context))
    monkeypatch.setattr(kfp_client.Client, "_NAMESPACE_PATH", str(tmp_path / "namespace"))
    before, api.multi_user = context.read_text(), True
    send(package, api)
    assert api.experiments[0]["namespace"] == "pod-namespace"
    assert "stale" not in str(api.requests)
    assert context.read_text() == before


def test_a_run_is_followed_to_its_end(package: Path, api: KfpApi) -> None:
    assert (send(package, api).state, send(package, api, wait=True).state) == (None, "SUCCEEDED")


@pytest.mark.parametrize("image", ["a/b:1.0", "localhost:5000/irra:1a2b3c4", "irra@sha256:" + "0" * 64, "a.b/c/d-e:v1"])
def test_an_image_with_a_fixed_name_is_accepted(image: str) -> None:
    check_image(image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("irra", "no tag"),
        ("localhost:5000/irra", "no tag"),
        ("irra:latest", "moving tag latest"),
        ("irra:", "not a reference"),
        ("Irra:1", "not a reference"),
        ("a b:1", "not a reference"),
        ("irra@sha256:12", "not a reference"),
        ("", "not a reference"),
    ],
)
def test_an_image_with_a_moving_name_is_refused(image: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_image(image)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("registry.example/irra:1", True),
        ("localhost/irra:1", True),
        ("registry:5000/irra:1", True),
        ("irra:1", False),
        ("someone/irra:1", False),
    ],
)
def test_a_registry_is_the_host_in_front(image: str, expected: bool) -> None:
    assert has_registry(image) is expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, 'unknown field "surprise"'),
        ({"runtime_config": {"root": "x"}}, 'unknown field "root"'),
        ({"display_name": 5}, "invalid value for str field display_name: 5"),
        ({"state": "BORED"}, "BORED"),
    ],
)
def test_the_test_server_refuses_what_the_gateway_refuses(change: Mapping[str, Any], message: str) -> None:
    check_model({"display_name": "r"}, "V2beta1Run")
    with pytest.raises(Refused, match=message):
        check_model({"display_name": "r", **change}, "V2beta1Run")


@pytest.mark.parametrize("parameters", [{}, {"number": "3"}, {"number": 3, "other": 1}])
def test_the_test_server_checks_parameters_itself(package: Path, api: KfpApi, parameters: Mapping[str, Any]) -> None:
    client = Client(Server(api.host))
    spec, platform = yaml.safe_load_all(package.read_text())
    body = kfp_server_api.V2beta1Run(
        display_name="r",
        experiment_id=client.experiment_id("e"),
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(parameters)),
    )
    with pytest.raises(UserError, match="400 Bad Request: Invalid input error"):
        client.create_run(body)
