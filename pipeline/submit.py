"""Submit a compiled pipeline to a Kubeflow Pipelines server.

Everything that can be checked locally is checked before the first request. The last request creates the run.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp_server_api

from irra.utils.errors import UserError
from pipeline.follow import follow
from pipeline.kfp_quirks import disable_caching
from pipeline.package import read_package, typed_arguments
from pipeline.server import Client, Server, Submission


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
    wait: bool = False,
) -> Submission:
    """Create a run of `package`, print its address, and with `wait` follow it to its end.

    `arguments` may be typed, or text from a command line. `enable_caching=False` runs every task again, also inside
    loops and branches; otherwise the settings of the compiled pipeline apply. If the run itself fails, `failure` of
    the returned `Submission` says why.

    Raises:
        UserError: The run could not be created or followed.
    """
    spec, platform = read_package(package)
    values = typed_arguments(package, spec, arguments or {})
    if pipeline_root is not None and "://" not in pipeline_root:
        raise UserError(f"pipeline root {pipeline_root!r} is not an address such as s3://bucket/folder")
    if not enable_caching:
        disable_caching(spec)
    client = Client(server)
    client.check_api()
    body = kfp_server_api.V2beta1Run(
        experiment_id=client.experiment_id(experiment),
        display_name=run_name or f"{spec['pipelineInfo']['name']} {datetime.now():%Y-%m-%d %H:%M:%S}",
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform} if platform else spec,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=values, pipeline_root=pipeline_root),
        service_account=service_account,
    )
    submission = client.create_run(body)
    print(f"run {submission.run_id}: {submission.address}", flush=True)
    return follow(client, submission) if wait else submission
