"""Pipelines that a server keeps by name: one pipeline, and a version of it for every package that was uploaded.

    version = upload(connect(server), package, version_name(package, image), "CUHK-PEDES, sdm+mlm+id")
    submit_version(connect(server), version, experiment="irra", run_name=None, service_account=None)

A name stands for one package for ever.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp_server_api

from irra.utils.errors import UserError
from pipeline.package import read_package
from pipeline.server.client import Client, Server, Submission, same_name
from pipeline.server.submit import check_version

PAGE = 100
SHORT = 12  # characters of a digest


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on the server; `is_new` if it was uploaded just now."""

    pipeline: str
    name: str
    pipeline_id: str
    version_id: str
    description: str = ""
    is_new: bool = False

    @property
    def reference(self) -> Any:
        """How the API names it."""
        return kfp_server_api.V2beta1PipelineVersionReference(self.pipeline_id, self.version_id)


def connect(server: Server) -> Client:
    """Return a client of a server that was asked which version it runs.

    Raises:
        UserError: It is too old, or cannot be reached.
    """
    client = Client(server)
    check_version(client.host, client.check_api())
    return client


def version_name(package: Path, image: str) -> str:
    """Return the tag of the image and a hash of the package, whose parameters and settings may differ at one commit.

    The hash is that of the content, since kfp writes the comments at the head of the file in another order each time.
    """
    tag = image.rpartition("@sha256:")[2][:SHORT] if "@" in image else image.rpartition(":")[2]
    content = json.dumps(read_package(package), sort_keys=True)
    return f"{tag}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def upload(client: Client, package: Path, version: str, description: str) -> Version:
    """Upload a package as a version of the pipeline whose name it has, unless this version is there already.

    Raises:
        UserError: The server refused, or could not be reached.
    """
    info = read_package(package)[0]["pipelineInfo"]
    name = info["name"]
    pipeline_id = _pipeline_id(client, name) or _create(client, name, info.get("description", ""))
    if known := _version(client, pipeline_id, version):
        return Version(name, version, pipeline_id, str(known.pipeline_version_id), known.description or "")
    made = client.ask(
        client._upload_api.upload_pipeline_version,
        str(package),
        name=version,
        pipelineid=pipeline_id,
        description=description,
    )
    return Version(name, version, pipeline_id, str(made.pipeline_version_id), description, is_new=True)


def find_version(client: Client, pipeline: str, version: str) -> Version:
    """Find a version by the names.

    Raises:
        UserError: There is none; the message names the latest ones.
    """
    pipeline_id = _pipeline_id(client, pipeline)
    if pipeline_id is None:
        raise UserError(f"{client.host} has no pipeline {pipeline!r}: upload it first (python -m pipeline upload)")
    found = _version(client, pipeline_id, version)
    if found is None:
        latest = client.ask(
            client._pipelines_api.pipeline_service_list_pipeline_versions,
            pipeline_id,
            page_size=5,
            sort_by="created_at desc",
        ).pipeline_versions
        names = ", ".join(other.display_name for other in latest or []) or "none"
        raise UserError(f"{client.host} has no version {version!r} of {pipeline}; the latest are: {names}")
    return Version(pipeline, version, pipeline_id, str(found.pipeline_version_id), found.description or "")


def submit_version(
    client: Client, version: Version, *, experiment: str, run_name: str | None, service_account: str | None
) -> Submission:
    """Create a run of an uploaded version, with the parameters that it was uploaded with, and print its address."""
    body = kfp_server_api.V2beta1Run(
        experiment_id=client.experiment_id(experiment),
        display_name=run_name or f"{version.pipeline} {version.name} {datetime.now():%Y-%m-%d %H:%M:%S}",
        description=version.description or None,
        pipeline_version_reference=version.reference,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={}),
        service_account=service_account,
    )
    submission = client.create_run(body)
    print(f"run {submission.run_id}: {submission.address}", flush=True)
    return submission


def every(client: Client, method: Callable[..., Any], field: str, **arguments: Any) -> Iterator[Any]:
    """Yield what a method of the API lists, page by page."""
    token = ""
    while True:
        page = client.ask(method, page_token=token, page_size=PAGE, **arguments)
        yield from getattr(page, field) or []
        token = page.next_page_token
        if not token:
            return


def _pipeline_id(client: Client, name: str) -> str | None:
    found = client.ask(
        client._pipelines_api.pipeline_service_list_pipelines,
        namespace=client.get_user_namespace(),
        filter=same_name(name),
    ).pipelines
    return str(found[0].pipeline_id) if found else None


def _create(client: Client, name: str, description: str) -> str:
    body = kfp_server_api.V2beta1Pipeline(
        display_name=name, description=description, namespace=client.get_user_namespace() or None
    )
    return str(client.ask(client._pipelines_api.pipeline_service_create_pipeline, pipeline=body).pipeline_id)


def _version(client: Client, pipeline_id: str, name: str) -> Any:
    found = client.ask(
        client._pipelines_api.pipeline_service_list_pipeline_versions, pipeline_id, filter=same_name(name)
    ).pipeline_versions
    return found[0] if found else None
