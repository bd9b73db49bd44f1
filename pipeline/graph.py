"""The graph: what each task gets from the others, and the two pipelines built from the tasks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.stages import SECTIONS, STAGES
from irra.config import ConfigSection, Params, change
from pipeline import tasks, train_on_nodes
from pipeline.cluster import Cluster, place
from pipeline.nodes import nodes_of

SHARED = ("prepare", "tokenize", "evaluate", "report")  # by all trainings of an ablation
NO_IMAGE = "irra-python-pipeline:none"  # for subprocesses; kfp warns unless it has "python" and a tag
Pipeline = Any  # kfp's GraphComponent; kfp has no types


def as_json(section: ConfigSection) -> str:
    """Serialize a section of params.yaml, as it is passed to a task."""
    return json.dumps(section.model_dump())


def arguments(params: Params) -> dict[str, str]:
    """Return the values of the pipeline's parameters for `params`."""
    return {name: as_json(getattr(params, name)) for name in SECTIONS}


def ablation_arguments(params: Params, losses: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the values of the ablation pipeline's parameters: one training for every set of losses and every seed."""
    trainings = [
        change(params, [f"train.loss_names={names}", f"train.seed={seed}"]).train for names in losses for seed in seeds
    ]
    shared = {name: text for name, text in arguments(params).items() if name in SHARED}
    return {**shared, "trainings": [as_json(training) for training in trainings]}


def irra_pipeline(params: Params, image: str, cluster: Cluster | None = None) -> Pipeline:
    """Build the pipeline from data to champion: train, evaluate and index one model; register it if it passes the gate.

    `cluster` is None for runs on this machine: kfp's local runners do not support its settings.
    """
    default = arguments(params)

    def run(name: str, task: dsl.PipelineTask) -> dsl.PipelineTask:
        return _place(task, name, image, cluster)

    @dsl.pipeline(name="irra", description="Text-to-image person retrieval: data to champion")
    def irra(
        prepare: str = default["prepare"],
        tokenize: str = default["tokenize"],
        train: str = default["train"],
        evaluate: str = default["evaluate"],
        report: str = default["report"],
        index: str = default["index"],
        registry: str = default["registry"],
        train_checkpoints: str = "",
    ) -> None:
        prepared = run("prepare", tasks.prepare(config=prepare)).outputs["prepared"]
        tokens = run("tokenize", tasks.tokenize(config=tokenize, prepared=prepared)).outputs["tokens"]
        # never cached, so it may see sections of later tasks: a change of theirs computes nothing else again
        later = {"index_config": index, "registry_config": registry}
        training = _train(cluster, train, train_checkpoints, prepared, tokens, **later)
        model = run("train", training).outputs["model"]
        evaluated = run("evaluate", _evaluate(evaluate, report, prepared, tokens, model))
        results = evaluated.outputs["results"]
        gallery = run("index", tasks.index(config=index, prepared=prepared, model=model)).outputs["gallery"]
        gate = run("gate", tasks.gate(config=registry, results=results))
        with dsl.If(gate.outputs["Output"] == "pass", name="passed"):
            registered = tasks.register(config=registry, model=model, results=results, gallery=gallery)
            run("register", registered)

    return irra


def ablation_pipeline(
    params: Params, image: str, cluster: Cluster | None, losses: Sequence[str], seeds: Sequence[int]
) -> Pipeline:
    """Build the paper's study: train every set of losses with every seed on the same data, and tabulate the results."""
    default = ablation_arguments(params, losses, seeds)

    def run(name: str, task: dsl.PipelineTask) -> dsl.PipelineTask:
        return _place(task, name, image, cluster)

    @dsl.pipeline(name="irra-ablation", description="Text-to-image person retrieval: which loss contributes what")
    def ablation(
        prepare: str = default["prepare"],
        tokenize: str = default["tokenize"],
        evaluate: str = default["evaluate"],
        report: str = default["report"],
        trainings: list[str] = default["trainings"],
        train_checkpoints: str = "",
    ) -> None:
        prepared = run("prepare", tasks.prepare(config=prepare)).outputs["prepared"]
        tokens = run("tokenize", tasks.tokenize(config=tokenize, prepared=prepared)).outputs["tokens"]
        with dsl.ParallelFor(trainings, name="trainings", parallelism=cluster and cluster.parallelism) as training:
            model = run("train", _train(cluster, training, train_checkpoints, prepared, tokens)).outputs["model"]
            evaluated = run("evaluate", _evaluate(evaluate, report, prepared, tokens, model))
        collected = dsl.Collected(evaluated.outputs["results"])
        run("compare", tasks.compare(results=collected, kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER))

    return ablation


def _place(task: dsl.PipelineTask, name: str, image: str, cluster: Cluster | None) -> dsl.PipelineTask:
    task.set_container_image(image)
    if not STAGES[name].cached:
        task.set_caching_options(False)
    if image != NO_IMAGE:
        task.set_env_variable("IRRA_IMAGE", image)
    return place(task, name, cluster) if cluster else task


def _train(
    cluster: Cluster | None, config: Any, checkpoints: Any, prepared: Any, tokens: Any, **later: Any
) -> dsl.PipelineTask:
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    given = {"config": config, "checkpoints": checkpoints, "kfp_run": run, "prepared": prepared, "tokens": tokens}
    if cluster and cluster.resources_of("train").num_nodes > 1:
        return train_on_nodes.train(nodes=as_json(nodes_of(cluster)), **given, **later)
    return tasks.train(**given, **later)


def _evaluate(config: Any, report_config: Any, prepared: Any, tokens: Any, model: Any) -> dsl.PipelineTask:
    return tasks.evaluate(config=config, report_config=report_config, prepared=prepared, tokens=tokens, model=model)


def compile_pipeline(pipeline: Pipeline, path: Path, values: Mapping[str, Any] | None = None) -> None:
    """Write `pipeline` to `path` as two YAML documents: the graph and its Kubernetes settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=dict(values or {}))
