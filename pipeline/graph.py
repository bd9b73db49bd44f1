"""The graph: which task gets what from which, and the two pipelines built of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from irra.config import ConfigSection, Params, change
from pipeline import tasks
from pipeline.cluster import Cluster, place

SECTIONS = ("prepare", "tokenize", "train", "evaluate", "index", "registry")
NO_IMAGE = "irra-python-pipeline:none"  # of tasks that run as subprocesses; "python" and a tag keep kfp silent
Pipeline = Any  # kfp's GraphComponent, which has no types


def as_json(section: ConfigSection) -> str:
    """A section of params.yaml in the form in which it travels to a task."""
    return json.dumps(section.model_dump())


def arguments(params: Params) -> dict[str, str]:
    """The values of a pipeline's parameters that `params` stands for."""
    return {name: as_json(getattr(params, name)) for name in SECTIONS}


def ablation_arguments(params: Params, losses: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The values of the ablation pipeline's parameters: `params`, trained once for every loss and seed."""
    trainings = [
        change(params, [f"train.loss_names={names}", f"train.seed={seed}"]).train for names in losses for seed in seeds
    ]
    shared = {name: text for name, text in arguments(params).items() if name in ("prepare", "tokenize", "evaluate")}
    return {**shared, "trainings": [as_json(training) for training in trainings]}


def irra_pipeline(params: Params, image: str, cluster: Cluster | None = None) -> Pipeline:
    """Data to champion: one model is trained, measured, indexed and, where it passes the gate, registered.

    `cluster`: None on this machine, where kfp's runners could not follow its settings.
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
        index: str = default["index"],
        registry: str = default["registry"],
        train_checkpoints: str = "",
    ) -> None:
        prepared = run("prepare", tasks.prepare(config=prepare)).outputs["prepared"]
        tokens = run("tokenize", tasks.tokenize(config=tokenize, prepared=prepared)).outputs["tokens"]
        model = _train(run, train, train_checkpoints, prepared, tokens).outputs["model"]
        evaluated = run("evaluate", tasks.evaluate(config=evaluate, prepared=prepared, tokens=tokens, model=model))
        results = evaluated.outputs["results"]
        gallery = run("index", tasks.index(config=index, prepared=prepared, model=model)).outputs["gallery"]
        gate = run("gate", tasks.gate(config=registry, results=results)).set_caching_options(False)
        with dsl.If(gate.outputs["Output"] == "pass", name="passed"):
            registered = tasks.register(config=registry, model=model, results=results, gallery=gallery)
            run("register", registered).set_caching_options(False)

    return irra


def ablation_pipeline(
    params: Params, image: str, cluster: Cluster | None, losses: Sequence[str], seeds: Sequence[int]
) -> Pipeline:
    """The paper's study: one training for every set of losses and seed on the same data, and one table of them all."""
    default = ablation_arguments(params, losses, seeds)

    def run(name: str, task: dsl.PipelineTask) -> dsl.PipelineTask:
        return _place(task, name, image, cluster)

    @dsl.pipeline(name="irra-ablation", description="Text-to-image person retrieval: which loss contributes what")
    def ablation(
        prepare: str = default["prepare"],
        tokenize: str = default["tokenize"],
        evaluate: str = default["evaluate"],
        trainings: list[str] = default["trainings"],
        train_checkpoints: str = "",
    ) -> None:
        prepared = run("prepare", tasks.prepare(config=prepare)).outputs["prepared"]
        tokens = run("tokenize", tasks.tokenize(config=tokenize, prepared=prepared)).outputs["tokens"]
        with dsl.ParallelFor(trainings, name="trainings") as training:
            model = _train(run, training, train_checkpoints, prepared, tokens).outputs["model"]
            evaluated = run("evaluate", tasks.evaluate(config=evaluate, prepared=prepared, tokens=tokens, model=model))
        collected = dsl.Collected(evaluated.outputs["results"])
        run("compare", tasks.compare(results=collected, kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER))

    return ablation


def _place(task: dsl.PipelineTask, name: str, image: str, cluster: Cluster | None) -> dsl.PipelineTask:
    task.set_container_image(image)
    if image != NO_IMAGE:
        task.set_env_variable("IRRA_IMAGE", image)
    return place(task, name, cluster) if cluster else task


def _train(
    run: Callable[[str, dsl.PipelineTask], dsl.PipelineTask], config: Any, checkpoints: Any, prepared: Any, tokens: Any
) -> dsl.PipelineTask:
    """Never cached: a training asked for again is wanted again, and its MLflow run with it."""
    task = tasks.train(
        config=config,
        checkpoints=checkpoints,
        kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        prepared=prepared,
        tokens=tokens,
    )
    return run("train", task).set_caching_options(False)


def compile_pipeline(pipeline: Pipeline, path: Path, values: Mapping[str, Any] | None = None) -> None:
    """Write `pipeline` as YAML, two documents: the graph and its Kubernetes settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=dict(values or {}))
