"""Submit a compiled pipeline to a Kubeflow Pipelines server.

Everything that can be checked locally is checked before the first request. The last request creates the run.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp_server_api

from irra.utils.errors import UserError
from pipeline.command_line import warn
from pipeline.kfp_quirks import disable_caching, separate_cache
from pipeline.package import read_package, typed_arguments
from pipeline.server.client import Client, Server, Submission
from pipeline.server.follow import follow

# `optional` of a Secret's variables, which cluster.yaml uses, needs a server of 2.15; `dsl.Collected` in graph.py 2.14.
ALL = "all tasks"  # run again
LOWEST, TESTED = (2, 15), (2, 17)
OWN_ROOT = (
    "pipeline root {root}: unless the ConfigMap kfp-launcher in the run's namespace names its endpoint, region and "
    "credentials, tasks fail at their end with `Invalid region` (docs/kubeflow.md has the text); only results that "
    "were stored under this root come from the cache"
)


def submit(
    package: Path,
    server: Server,
    *,
    experiment: str,
    run_name: str | None = None,
    description: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    again: str | None = None,
    wait: bool = False,
) -> Submission:
    """Create a run of `package`, print its address, and with `wait` follow it to its end.

    `arguments` may be typed, or text from a command line. `again` is the first task that shall not come from the cache,
    nor what follows from it, or ALL; otherwise the settings of the compiled pipeline apply. If the run itself fails,
    `failure` of the returned `Submission` says why.

    Raises:
        UserError: The run could not be created or followed.
    """
    spec, platform = read_package(package)
    values = typed_arguments(package, spec, arguments or {})
    if pipeline_root is not None and "://" not in pipeline_root:
        raise UserError(f"pipeline root {pipeline_root!r} is not an address such as s3://bucket/folder")
    if pipeline_root is not None:
        separate_cache(spec, pipeline_root)
        warn(OWN_ROOT.format(root=pipeline_root))
    if again:
        disable_caching(spec, None if again == ALL else again)
    client = Client(server)
    check_version(client.host, client.check_api())
    body = kfp_server_api.V2beta1Run(
        experiment_id=client.experiment_id(experiment),
        display_name=run_name or f"{spec['pipelineInfo']['name']} {datetime.now():%Y-%m-%d %H:%M:%S}",
        description=description,
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform} if platform else spec,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=values, pipeline_root=pipeline_root),
        service_account=service_account,
    )
    submission = client.create_run(body)
    print(f"run {submission.run_id}: {submission.address}", flush=True)
    return follow(client, submission) if wait else submission


def check_version(host: str, version: str) -> None:
    """Warn of a server that was not tested.

    Raises:
        UserError: It is too old for what the pipeline is compiled to.
    """
    needed, tested = (".".join(map(str, numbers)) for numbers in (LOWEST, TESTED))
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if not match:
        return warn(f"{host} does not say which version of Kubeflow Pipelines it runs: {needed} or later is needed")
    found = int(match[1]), int(match[2])
    if found < LOWEST:
        raise UserError(f"{host} runs Kubeflow Pipelines {version}: {needed} or later is needed")
    if found > TESTED:
        warn(f"{host} runs Kubeflow Pipelines {version}: this was tested up to {tested}")
