"""The graph: what each task gets from the others, and the pipelines built from the tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from components.kubeflow import as_parameter
from components.stages import SECTIONS, STAGES
from irra.config import Params, change, located
from pipeline import tasks, train_on_nodes
from pipeline.cluster import Cluster, place
from pipeline.nodes import nodes_of

SHARED = ("prepare", "tokenize", "train", "evaluate", "report")  # by all trainings of an ablation
IRRA, SCHEDULED, ABLATION = "irra", "irra-scheduled", "irra-ablation"  # names of the pipelines
NO_IMAGE = "irra-python-pipeline:none"  # for subprocesses; kfp warns unless it has "python" and a tag
RUN_LABEL = "metadata.labels['pipeline/runid']"
Pipeline = Any  # kfp's GraphComponent; kfp has no types
Values = dict[str, Any]


def arguments(params: Params) -> Values:
    """Return the values of the pipeline's parameters for `params`."""
    sections = {name: getattr(params, name) for name in SECTIONS} | {"evaluate": located(params)}
    return {name: as_parameter(section) for name, section in sections.items()}


def ablation_arguments(params: Params, losses: Sequence[str], seeds: Sequence[int]) -> Values:
    """Return the values of the ablation pipeline's parameters: one training for every set of losses and every seed.

    A training's item in the list holds only what is its own, since Kubernetes limits the length of arguments.

    Raises:
        UserError: A set of losses or a seed is invalid.
    """
    for names in losses:
        for seed in seeds:
            change(params, [f"train.loss_names={names}", f"train.seed={seed}"])
    shared = {name: values for name, values in arguments(params).items() if name in SHARED}
    return {**shared, "trainings": [{"loss_names": names, "seed": str(seed)} for names in losses for seed in seeds]}


@dataclass(frozen=True)
class Builder:
    """Adds tasks to a graph, each with the image and with what `cluster` says of it.

    `cluster` is None for runs on this machine: kfp's local runners do not support its settings.
    """

    image: str
    cluster: Cluster | None

    def add(self, name: str, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Set where and how the task of the stage `name` runs."""
        task.set_container_image(self.image)
        if not STAGES[name].cached:
            task.set_caching_options(False)
        if self.image != NO_IMAGE:
            task.set_env_variable("IRRA_IMAGE", self.image)
        if self.cluster is None:
            return task
        # As a parameter, it would make every run another for the cache.
        kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", RUN_LABEL)
        return place(task, name, self.cluster)

    def train(self, **given: Any) -> dsl.PipelineTask:
        """Add the training, in its own pod or on several nodes."""
        if self.cluster and self.cluster.resources_of("train").num_nodes > 1:
            return self.add("train", train_on_nodes.train(nodes=as_parameter(nodes_of(self.cluster)), **given))
        return self.add("train", tasks.train(**given))

    def data_to_champion(
        self, sections: Mapping[str, Any], checkpoints: Any, prepared: Any, *, new_data: bool = False
    ) -> None:
        """Add all tasks behind `prepare`: train, evaluate and index one model; register it if it passes the gate.

        With `new_data`, the champion is evaluated on the same data, since the one that it was registered with is past;
        before the training, which would be for nothing if it cannot be.
        """
        splits = {name: sections[name] for name in ("train", "index", "registry")}
        first = [self.add("check", tasks.check(prepared=prepared, **splits))]
        tokenized = self.add("tokenize", tasks.tokenize(config=sections["tokenize"], prepared=prepared))
        data = {"prepared": prepared, "tokens": tokenized.outputs["tokens"]}
        rival = {}
        if new_data:
            judged = {name: sections[name] for name in ("evaluate", "registry")}
            first.append(self.add("champion", tasks.champion(**judged, **data)))
            rival = {"champion_results": first[-1].output}
        training = self.train(config=sections["train"], checkpoints=checkpoints, **data).after(*first)
        model = training.outputs["model"]
        evaluation = {"config": sections["evaluate"], "report": sections["report"]}
        results = self.add("evaluate", tasks.evaluate(**evaluation, **data, model=model)).outputs["results"]
        indexed = self.add("index", tasks.index(config=sections["index"], prepared=prepared, model=model))
        gate = self.add("gate", tasks.gate(config=sections["registry"], results=results, **rival))
        with dsl.If(gate.outputs["Output"] == "pass", name="passed"):
            made = {"model": model, "results": results, "gallery": indexed.outputs["gallery"]}
            self.add("register", tasks.register(config=sections["registry"], **made, **rival))


def irra_pipeline(params: Params, image: str, cluster: Cluster | None = None) -> Pipeline:
    """Build the pipeline from data to champion."""
    described = dsl.pipeline(name=IRRA, description="Text-to-image person retrieval: data to champion")
    return described(_graph(params, Builder(image, cluster), scheduled=False))


def scheduled_pipeline(params: Params, image: str, cluster: Cluster | None = None) -> Pipeline:
    """Build the pipeline for a schedule: it reads the data anew each time, and trains if the champion is outdated."""
    described = dsl.pipeline(name=SCHEDULED, description="Text-to-image person retrieval: a champion for new data")
    return described(_graph(params, Builder(image, cluster), scheduled=True))


def _graph(params: Params, build: Builder, scheduled: bool) -> Callable[..., None]:
    """Return the graph as a function, whose signature tells kfp the parameters of the pipeline."""
    default = arguments(params)

    def graph(
        prepare: dict = default["prepare"],
        tokenize: dict = default["tokenize"],
        train: dict = default["train"],
        evaluate: dict = default["evaluate"],
        report: dict = default["report"],
        index: dict = default["index"],
        registry: dict = default["registry"],
        train_checkpoints: str = "",
    ) -> None:
        reading = build.add("prepare", tasks.prepare(config=prepare))
        prepared = reading.outputs["prepared"]
        compared = {"tokenize": tokenize, "train": train, "registry": registry}
        sections = {**compared, "evaluate": evaluate, "report": report, "index": index}
        if not scheduled:
            return build.data_to_champion(sections, train_checkpoints, prepared)
        reading.set_caching_options(False)
        outdated = build.add("outdated", tasks.outdated(**compared, prepared=prepared))
        with dsl.If(outdated.outputs["Output"] == "yes", name="outdated"):
            build.data_to_champion(sections, train_checkpoints, prepared, new_data=True)

    return graph


def ablation_pipeline(
    params: Params, image: str, cluster: Cluster | None, losses: Sequence[str], seeds: Sequence[int]
) -> Pipeline:
    """Build the paper's study: train every set of losses with every seed on the same data, and tabulate the results."""
    default, build = ablation_arguments(params, losses, seeds), Builder(image, cluster)

    @dsl.pipeline(name=ABLATION, description="Text-to-image person retrieval: which loss contributes what")
    def ablation(
        prepare: dict = default["prepare"],
        tokenize: dict = default["tokenize"],
        train: dict = default["train"],
        evaluate: dict = default["evaluate"],
        report: dict = default["report"],
        trainings: list = default["trainings"],
        train_checkpoints: str = "",
    ) -> None:
        prepared = build.add("prepare", tasks.prepare(config=prepare)).outputs["prepared"]
        tokens = build.add("tokenize", tasks.tokenize(config=tokenize, prepared=prepared)).outputs["tokens"]
        data = {"prepared": prepared, "tokens": tokens}
        with dsl.ParallelFor(trainings, name="trainings", parallelism=cluster and cluster.parallelism) as own:
            changed = {"loss_names": own.loss_names, "seed": own.seed}
            model = build.train(config=train, checkpoints=train_checkpoints, **data, **changed).outputs["model"]
            evaluated = build.add("evaluate", tasks.evaluate(config=evaluate, report=report, **data, model=model))
        build.add("compare", tasks.compare(results=dsl.Collected(evaluated.outputs["results"])))

    return ablation


def tasks_in(pipeline: Pipeline) -> list[str]:
    """Return the names of the tasks that a pipeline has, at any depth."""
    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    return [name for name in STAGES if f"exec-{name}" in executors]


def compile_pipeline(pipeline: Pipeline, path: Path, values: Mapping[str, Any] | None = None) -> None:
    """Write `pipeline` to `path` as two YAML documents: the graph and its Kubernetes settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=dict(values or {}))
