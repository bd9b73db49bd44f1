"""The commands for a Kubeflow cluster: start a run, keep the pipeline there as a version, run it on a schedule."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.layout import PARAMS
from irra.utils.errors import UserError
from pipeline import schedules
from pipeline.choice import Chosen, add_pipeline_command, for_cluster, name_of, read_params
from pipeline.command_line import add_server, chosen_server

if TYPE_CHECKING:
    from pipeline.server.catalog import Version
    from pipeline.server.client import Client


def add_commands(commands: Any) -> None:
    """Add `submit`, `upload`, `schedule` and `schedules`."""
    submitted = add_pipeline_command(commands, "submit", submit_, "start a run on a Kubeflow cluster")
    submitted.add_argument("--version", help="run this version as it was uploaded, instead of --image")
    submitted.add_argument("--run-name", help="(default: dataset, losses, seed and time)")
    submitted.add_argument(
        "--pipeline-root",
        help="where artifacts go, s3://bucket/folder (default: the server's); see docs/kubeflow.md first",
    )
    again = submitted.add_mutually_exclusive_group()
    again.add_argument("--no-cache", action="store_true", help="run every task again")
    again.add_argument("--retrain", action="store_true", help="run train again, and what follows from it")
    submitted.add_argument("--wait", action="store_true", help="follow the run, and fail if it fails")
    what = "put the pipeline on a Kubeflow cluster, as a version by name"
    uploaded = add_pipeline_command(commands, "upload", upload_, what)
    what = "let a Kubeflow cluster train again and again, when the data have changed"
    scheduled = add_pipeline_command(commands, "schedule", schedule_, what)
    schedules.add_schedule(scheduled)
    for command in (submitted, uploaded, scheduled):
        add_server(command)
    for command in (submitted, scheduled):
        command.add_argument("--experiment", default="irra", help="(default: %(default)s)")
    schedules.add_commands(commands)


def submit_(options: argparse.Namespace) -> None:
    """Check, compile and submit. Nothing is sent until every check has passed."""
    from pipeline.graph import compile_pipeline
    from pipeline.server.submit import ALL, submit

    if options.version:
        return submit_version(options)
    if not options.image:
        raise UserError("give --image, or the --version of an uploaded pipeline")
    params = read_params(options)
    chosen, cluster = for_cluster(options, params)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "pipeline.yaml")
        compile_pipeline(chosen.pipeline, package)
        submission = submit(
            package,
            chosen_server(options),
            experiment=options.experiment,
            run_name=name_of(options, params),
            description=chosen.description,
            arguments=chosen.values,
            pipeline_root=options.pipeline_root,
            service_account=cluster.service_account,
            again=ALL if options.no_cache else "train" if options.retrain else None,
            wait=options.wait,
        )
    if submission.failure:
        raise UserError(submission.failure)


def submit_version(options: argparse.Namespace) -> None:
    """Submit a version that was uploaded, with the parameters and settings that it has."""
    from pipeline.cluster import load_cluster
    from pipeline.graph import ABLATION, IRRA
    from pipeline.server import catalog
    from pipeline.server.follow import follow

    fixed = ("image", "params", "set", "checkpoints", "no_cache", "retrain", "pipeline_root")
    given = [
        f"--{name.replace('_', '-')}" for name in fixed if getattr(options, name) not in (None, PARAMS, [], "", False)
    ]
    if given:
        raise UserError(f"--version runs what was uploaded, as it is: leave out {', '.join(given)}, or upload another")
    client = catalog.connect(chosen_server(options))
    pipeline = ABLATION if options.ablation else IRRA
    submission = catalog.submit_version(
        client,
        catalog.find_version(client, pipeline, options.version),
        experiment=options.experiment,
        run_name=options.run_name,
        service_account=load_cluster(options.cluster).service_account,
    )
    if options.wait and (failure := follow(client, submission).failure):
        raise UserError(failure)


def upload_(options: argparse.Namespace) -> None:
    """Check, compile and upload."""
    _upload(options)


def _upload(options: argparse.Namespace) -> tuple["Client", "Version", Chosen]:
    from pipeline.graph import compile_pipeline
    from pipeline.server import catalog

    chosen, _ = for_cluster(options, read_params(options))
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "pipeline.yaml")
        compile_pipeline(chosen.pipeline, package, chosen.values)
        client = catalog.connect(chosen_server(options))
        name = catalog.version_name(package, options.image)
        version = catalog.upload(client, package, name, chosen.description)
    done = "uploaded" if version.is_new else "was there already"
    print(f"pipeline {version.pipeline}, version {version.name}: {done}")
    return client, version, chosen


def schedule_(options: argparse.Namespace) -> None:
    """Check, compile, upload and schedule."""
    from pipeline.cluster import load_cluster
    from pipeline.schedules import Schedule, create

    schedule = Schedule(options.name, options.cron, options.every)
    schedule.trigger()  # before anything is sent
    client, version, chosen = _upload(options)
    schedule_id = create(
        client,
        version,
        schedule,
        experiment=options.experiment,
        service_account=load_cluster(options.cluster).service_account,
        description=chosen.description,
    )
    print(f"schedule {schedule.name} ({schedule_id}): {schedule.times()}")
