"""Compile the pipeline, run it on this machine, or submit it to a cluster.

python -m pipeline compile --image registry/irra-python-pipeline:0123456789ab
python -m pipeline run-local --set train.num_epoch=2
python -m pipeline run-docker --image irra-python-pipeline:0123456789ab
python -m pipeline submit --host http://localhost:8080 --image registry/irra-python-pipeline:0123456789ab
python -m pipeline submit --host http://localhost:8080 --version 0123456789ab-89abcdef
python -m pipeline upload --host http://localhost:8080 --image registry/irra-python-pipeline:0123456789ab
python -m pipeline schedule "0 3 * * *" --host http://localhost:8080 --image registry/irra-python-pipeline:0123456789ab
python -m pipeline schedules pause irra --host http://localhost:8080
python -m pipeline status RUN --host http://localhost:8080
python -m pipeline logs RUN train --host http://localhost:8080
python -m pipeline training-runtime --cluster cluster.yaml | kubectl apply -f -

Each command shows all its options: python -m pipeline submit --help
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.ablation import add_choice
from components.layout import PARAMS
from components.s3.client import is_remote, parse_address
from components.stage import guarded
from irra.config import Params, change, load_params
from irra.utils.errors import UserError
from pipeline import schedules, status
from pipeline.command_line import add_cluster, add_command, add_server, chosen_server, warn

if TYPE_CHECKING:
    from pipeline.catalog import Version
    from pipeline.cluster import Cluster
    from pipeline.server import Client


@dataclass(frozen=True)
class Chosen:
    """A pipeline, and the values of its parameters."""

    pipeline: Any
    values: Mapping[str, Any]


def parse() -> argparse.Namespace:
    """Parse the command line. Every command sets `run`, a function of the options."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__, formatter_class=Formatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_commands(commands)
    schedules.add_commands(commands)
    status.add_commands(commands)
    return parser.parse_args()


def _add_commands(commands: Any) -> None:
    compiled = _command(commands, "compile", compile_, "write the pipeline as YAML")
    compiled.add_argument(
        "--output", type=Path, help="file (default: build/irra-pipeline.yaml, or irra-ablation-pipeline.yaml)"
    )
    for name, run, what in (
        ("run-local", run_local, "run every task as a subprocess"),
        ("run-docker", run_docker, "run every task in a container"),
    ):
        command = _command(commands, name, run, f"{what} on this machine")
        command.add_argument("--runs", type=Path, default=Path("build/runs"), help="outputs (default: %(default)s)")
    submitted = _command(commands, "submit", submit_, "start a run on a Kubeflow cluster")
    _add_submission(submitted)
    add_server(_command(commands, "upload", upload_, "put the pipeline on a Kubeflow cluster, as a version by name"))
    schedule = _command(commands, "schedule", schedule_, "let a Kubeflow cluster run the pipeline again and again")
    schedules.add_schedule(schedule)
    add_server(schedule)
    for command in (submitted, schedule):
        command.add_argument("--experiment", default="irra", help="(default: %(default)s)")
    what = "print what a namespace needs to train on several nodes, for `kubectl apply -f -`"
    runtime = add_command(commands, "training-runtime", training_runtime, what)
    add_cluster(runtime)
    runtime.add_argument("--namespace", default="kubeflow", help="that of the runs (default: %(default)s)")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that keeps the examples' lines."""


def _command(commands: Any, name: str, run: Callable[..., None], what: str) -> argparse.ArgumentParser:
    """Add a command that builds the pipeline."""
    command = add_command(commands, name, run, what)
    command.add_argument("--params", type=Path, default=PARAMS, help="parameter file (default: %(default)s)")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as train.lr=1e-4; repeatable"
    )
    command.add_argument(
        "--checkpoints", default="", metavar="URI", help="where training states go: s3://bucket/folder"
    )
    command.add_argument("--ablation", action="store_true", help="train all --losses with all --seeds and compare them")
    add_choice(command)
    if name != "run-local":
        needed = name != "submit"  # which also takes a version
        command.add_argument("--image", required=needed, help="image for all tasks; its tag must never move")
    if name in ("compile", "submit", "upload", "schedule"):
        add_cluster(command)
    return command


def _add_submission(command: argparse.ArgumentParser) -> None:
    add_server(command)
    command.add_argument("--version", help="run this version as it was uploaded, instead of --image")
    command.add_argument("--run-name", help="(default: pipeline and time)")
    command.add_argument(
        "--pipeline-root",
        help="where artifacts go, s3://bucket/folder (default: the server's); see docs/kubeflow.md first",
    )
    command.add_argument("--no-cache", action="store_true", help="run every task again")
    command.add_argument("--wait", action="store_true", help="follow the run, and fail if it fails")


def choose(options: argparse.Namespace, params: Params | None = None) -> Chosen:
    """Build the pipeline that `options` ask for. Without `params`, read them as the options say."""
    # imported here: kfp takes a second, and `--help` should not
    from pipeline import graph
    from pipeline.cluster import check_nodes, load_cluster

    if options.checkpoints:  # any machine must be able to reach them
        parse_address(options.checkpoints, "--checkpoints")
    params = params or read_params(options)
    image, cluster = getattr(options, "image", graph.NO_IMAGE), None
    if "cluster" in options:
        cluster = load_cluster(options.cluster)
        check_nodes(cluster, options.checkpoints)
    checkpoints = {"train_checkpoints": options.checkpoints}
    if options.ablation:
        values = graph.ablation_arguments(params, options.losses, options.seeds)
        pipeline = graph.ablation_pipeline(params, image, cluster, options.losses, options.seeds)
    else:
        build = schedules.scheduled_pipeline if options.command == "schedule" else graph.irra_pipeline
        values, pipeline = graph.arguments(params), build(params, image, cluster)
    return Chosen(pipeline, {**values, **checkpoints})


def read_params(options: argparse.Namespace) -> Params:
    """Read the parameter file and apply the `--set` changes."""
    return change(load_params(options.params), options.set)


def check_dataset(options: argparse.Namespace, params: Params) -> None:
    """Check that a dataset on this machine has the splits that the tasks need; one in S3 is checked before training.

    Raises:
        UserError: It has not.
    """
    from irra.data.splits import check_annotations, needed_splits

    later = () if options.ablation else (params.index, params.registry)
    source = params.prepare.source
    if source and not is_remote(source):
        check_annotations(Path(source), params.prepare, needed_splits(params.train, *later))


def compile_(options: argparse.Namespace) -> None:
    """Write the YAML."""
    from pipeline.graph import compile_pipeline
    from pipeline.package import check_image

    check_image(options.image)
    chosen = choose(options)
    path = options.output or Path("build", f"{chosen.pipeline.name}-pipeline.yaml")
    compile_pipeline(chosen.pipeline, path, chosen.values)
    print(f"wrote {path}")


def for_cluster(options: argparse.Namespace, params: Params) -> tuple[Chosen, "Cluster"]:
    """Build the pipeline, and check all that can be checked before anything is sent to a cluster.

    Raises:
        UserError: The cluster could not run it.
    """
    from pipeline.cluster import check_reachable, load_cluster
    from pipeline.misfits import warn_of_misfits
    from pipeline.package import check_committed, check_image, has_registry

    check_image(options.image)
    if not getattr(options, "no_cache", False):
        check_committed(options.image)
    check_reachable(params)
    chosen, cluster = choose(options, params), load_cluster(options.cluster)
    if not has_registry(options.image):
        warn(f"image {options.image} names no registry, so the cluster looks for it at docker.io")
    if not cluster.knows_mlflow():
        lost = "logged metrics and registered models are lost when the pods end"
        warn(f"{options.cluster}: environment has no MLFLOW_TRACKING_URI, so {lost}")
    warn_of_misfits(cluster)
    return chosen, cluster


def submit_(options: argparse.Namespace) -> None:
    """Check, compile and submit. Nothing is sent until every check has passed."""
    from pipeline.graph import compile_pipeline
    from pipeline.submit import submit

    if options.version:
        return submit_version(options)
    if not options.image:
        raise UserError("give --image, or the --version of an uploaded pipeline")
    chosen, cluster = for_cluster(options, read_params(options))
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "pipeline.yaml")
        compile_pipeline(chosen.pipeline, package)
        submission = submit(
            package,
            chosen_server(options),
            experiment=options.experiment,
            run_name=options.run_name,
            arguments=chosen.values,
            pipeline_root=options.pipeline_root,
            service_account=cluster.service_account,
            enable_caching=not options.no_cache,
            wait=options.wait,
        )
    if submission.failure:
        raise UserError(submission.failure)


def submit_version(options: argparse.Namespace) -> None:
    """Submit a version that was uploaded, with the parameters and settings that it has."""
    from pipeline import catalog
    from pipeline.cluster import load_cluster
    from pipeline.follow import follow

    fixed = ("image", "params", "set", "checkpoints", "no_cache", "pipeline_root")
    given = [
        f"--{name.replace('_', '-')}" for name in fixed if getattr(options, name) not in (None, PARAMS, [], "", False)
    ]
    if given:
        raise UserError(f"--version runs what was uploaded, as it is: leave out {', '.join(given)}, or upload another")
    client = catalog.connect(chosen_server(options))
    pipeline = catalog.ABLATION if options.ablation else catalog.PIPELINE
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


def _upload(options: argparse.Namespace) -> tuple["Client", "Version"]:
    from pipeline import catalog
    from pipeline.graph import compile_pipeline

    params = read_params(options)
    chosen, _ = for_cluster(options, params)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "pipeline.yaml")
        compile_pipeline(chosen.pipeline, package, chosen.values)
        name, description = catalog.version_name(package, options.image), catalog.description_of(params, options.image)
        client = catalog.connect(chosen_server(options))
        version = catalog.upload(client, package, name, description)
    print(
        f"pipeline {version.pipeline}, version {version.name}: {'uploaded' if version.is_new else 'was there already'}"
    )
    return client, version


def schedule_(options: argparse.Namespace) -> None:
    """Check, compile, upload and schedule."""
    from pipeline import catalog
    from pipeline.cluster import load_cluster
    from pipeline.schedules import Schedule, create

    if options.ablation:
        raise UserError("a schedule trains one model: leave out --ablation")
    schedule = Schedule(options.name, options.cron, options.every)
    schedule.trigger()  # before anything is sent
    client, version = _upload(options)
    schedule_id = create(
        client,
        version,
        schedule,
        experiment=options.experiment,
        service_account=load_cluster(options.cluster).service_account,
        description=catalog.description_of(read_params(options), options.image),
    )
    print(f"schedule {schedule.name} ({schedule_id}): {options.cron or options.every}, in the server's time zone")


def training_runtime(options: argparse.Namespace) -> None:
    """Print the manifests."""
    import yaml

    from pipeline.cluster import load_cluster
    from pipeline.nodes import manifests

    print(yaml.safe_dump_all(manifests(load_cluster(options.cluster), options.namespace), sort_keys=False), end="")


def run_local(options: argparse.Namespace) -> None:
    """Run the tasks with this Python."""
    from pipeline.local import run_in_subprocesses

    params = read_params(options)
    check_dataset(options, params)
    chosen = choose(options, params)
    _say_where(run_in_subprocesses(chosen.pipeline, options.runs, chosen.values))


def run_docker(options: argparse.Namespace) -> None:
    """Run the tasks in containers of the image; local data and weights are mounted at their own paths."""
    from pipeline.local import on_this_machine, run_in_containers
    from pipeline.package import check_image

    check_image(options.image)
    params, mounts = on_this_machine(read_params(options))
    check_dataset(options, params)
    chosen = choose(options, params)
    _say_where(run_in_containers(chosen.pipeline, options.runs, chosen.values, options.image, mounts))


def _say_where(folder: Path) -> None:
    print(f"outputs: {folder}\nCompare runs in a browser: make mlflow")


def main() -> int:
    """Run the command and return the exit status."""
    options = parse()
    return guarded(lambda: options.run(options))


if __name__ == "__main__":
    raise SystemExit(main())
