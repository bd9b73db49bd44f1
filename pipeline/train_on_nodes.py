"""The task `train` of a cluster with several nodes for it: `pipeline.tasks.train`, whose training is a TrainJob.

A component has its function's name, so this one has a module of its own. `pipeline.graph` sets the image.
"""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def train(
    config: str,
    checkpoints: str,
    kfp_run: str,
    nodes: str,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    index_config: str = "",
    registry_config: str = "",
) -> None:
    """Train IRRA on several nodes, validate after every epoch and keep the best weights."""
    from pathlib import Path

    from components import train as stage
    from components import train_job
    from components.kubeflow import reporting_folder, running_stage
    from components.kubeflow_trainer import Nodes
    from components.report import draw_dataset, draw_training, log, write_chapter
    from irra.checkpoint import read_model_metadata
    from irra.config import IndexConfig, RegistryConfig, TrainConfig, parse_section

    with running_stage(kfp_run), reporting_folder() as folder:
        inputs, section = stage.Inputs(Path(prepared.path), Path(tokens.path)), parse_section(TrainConfig, config)
        if index_config and registry_config:  # an ablation has neither
            later = parse_section(IndexConfig, index_config), parse_section(RegistryConfig, registry_config)
            stage.check_splits(inputs, section, *later)
        outputs = stage.Outputs(Path(model.path), folder, checkpoints_uri=checkpoints)
        result = train_job.run(inputs, outputs, section, parse_section(Nodes, nodes))
        training = draw_training(folder, read_model_metadata(outputs.model), folder)
        write_chapter(Path(report.path), training)
        log([draw_dataset(inputs.prepared, folder), training], result["model_fingerprint"])
    facts = {name: result[name] for name in ("model_fingerprint", "run_id")}
    model.metadata.update({name: fact for name, fact in facts.items() if fact is not None})  # KFP fails on null
    metrics.metadata.update(result["selected"])
