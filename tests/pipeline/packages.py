"""Compiled pipelines, read back for tests."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from irra.config import Params, load_params
from pipeline.cluster import Cluster, load_cluster
from pipeline.graph import Pipeline, ablation_pipeline, compile_pipeline, irra_pipeline, scheduled_pipeline
from tests.imports import ROOT

IMAGE = "registry.example/irra-python-pipeline:0123456789ab"
LOSSES, SEEDS = ("itc", "sdm+id"), (0, 1)


def tiny() -> Params:
    return load_params(ROOT / "presets" / "tiny.yaml")


def cluster() -> Cluster:
    return load_cluster(ROOT / "pipeline" / "cluster.yaml")


def compiled(pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compile, and return the graph and the Kubernetes settings."""
    with TemporaryDirectory() as folder:
        compile_pipeline(pipeline, path := Path(folder, "package.yaml"))
        spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@cache
def irra_package() -> tuple[dict[str, Any], dict[str, Any]]:
    return compiled(irra_pipeline(tiny(), IMAGE, cluster()))


@cache
def scheduled_package() -> tuple[dict[str, Any], dict[str, Any]]:
    return compiled(scheduled_pipeline(tiny(), IMAGE, cluster()))


@cache
def ablation_package() -> tuple[dict[str, Any], dict[str, Any]]:
    return compiled(ablation_pipeline(tiny(), IMAGE, cluster(), LOSSES, SEEDS))


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the container of every task."""
    executors = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def several_nodes(num_nodes: int, **train: Any) -> Cluster:
    """The shipped settings with several nodes for `train`, and other changes to it."""
    settings = cluster().model_dump()
    settings["tasks"]["train"] |= {"num_nodes": num_nodes, **train}
    return Cluster.model_validate(settings)
