"""What the commands build: a pipeline and the values of its parameters, as options and a parameter file choose them.

Nothing here imports kfp before a pipeline is built: it takes a second, and `--help` should not.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.ablation import add_choice
from components.layout import PARAMS
from components.s3.client import is_remote, parse_address
from irra.config import Params, change, load_params
from pipeline import labels
from pipeline.command_line import add_cluster, add_command, warn

if TYPE_CHECKING:
    from pipeline.cluster import Cluster


@dataclass(frozen=True)
class Chosen:
    """A pipeline, the values of its parameters, and a line about what it trains."""

    pipeline: Any
    values: Mapping[str, Any]
    description: str


def add_pipeline_command(commands: Any, name: str, run: Callable[..., None], what: str) -> argparse.ArgumentParser:
    """Add a command that builds the pipeline."""
    command = add_command(commands, name, run, what)
    command.add_argument("--params", type=Path, default=PARAMS, help="parameter file (default: %(default)s)")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as train.lr=1e-4; repeatable"
    )
    command.add_argument(
        "--checkpoints", default="", metavar="URI", help="where training states go: s3://bucket/folder"
    )
    if name == "schedule":  # which trains one model
        command.set_defaults(ablation=False)
    else:
        study = "train all --losses with all --seeds and compare them"
        command.add_argument("--ablation", action="store_true", help=study)
        add_choice(command)
    if name != "run-local":
        needed = name != "submit"  # which also takes a version
        command.add_argument("--image", required=needed, help="image for all tasks; its tag must never move")
    if name in ("compile", "submit", "upload", "schedule"):
        add_cluster(command)
    return command


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
        build = graph.scheduled_pipeline if options.command == "schedule" else graph.irra_pipeline
        values, pipeline = graph.arguments(params), build(params, image, cluster)
    return Chosen(pipeline, {**values, **checkpoints}, describe(options, params))


def describe(options: argparse.Namespace, params: Params) -> str:
    """Say in a line what is trained."""
    study = (options.losses, options.seeds) if options.ablation else ((), ())
    return labels.description(params, getattr(options, "image", None), options.set, *study)


def name_of(options: argparse.Namespace, params: Params) -> str:
    """Name a run that is submitted now."""
    losses = options.losses if options.ablation else ()
    return options.run_name or labels.run_name(params, datetime.now(), losses)


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


def for_cluster(options: argparse.Namespace, params: Params) -> tuple[Chosen, "Cluster"]:
    """Build the pipeline, and check all that can be checked before anything is sent to a cluster.

    Raises:
        UserError: The cluster could not run it.
    """
    from pipeline.cluster import check_reachable, load_cluster
    from pipeline.graph import tasks_in
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
    warn_of_misfits(cluster, tasks_in(chosen.pipeline))
    return chosen, cluster
