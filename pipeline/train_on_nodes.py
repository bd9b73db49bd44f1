"""The task `train` of a cluster with several nodes for it: `pipeline.tasks.train`, whose training is a TrainJob.

A component has its function's name, so this one has a module of its own. `pipeline.graph` sets the image.
"""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def train(
    config: dict,
    checkpoints: str,
    nodes: dict,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    training_metrics: dsl.Output[dsl.Metrics],
    training_report: dsl.Output[dsl.HTML],
    loss_names: str = "",
    seed: str = "",
) -> None:
    """Train IRRA on several nodes, validate after every epoch and keep the best weights."""
    from pathlib import Path

    from components import train_job
    from components.kubeflow import reporting_folder, rounded, running_stage, section
    from components.kubeflow_trainer import Nodes
    from components.train import Inputs, Outputs
    from components.training_task import publish, training_section

    with running_stage(own_run=True, ablation=loss_names != ""), reporting_folder() as folder:
        inputs = Inputs(Path(prepared.path), Path(tokens.path))
        outputs = Outputs(Path(model.path), folder, checkpoints_uri=checkpoints)
        configured = training_section(config, loss_names, seed), section(Nodes, nodes)
        result = train_job.run(inputs, outputs, *configured)
        facts = publish(inputs, outputs, result, Path(training_report.path))
    model.metadata.update(facts)
    own = {name: facts[name] for name in ("loss_names", "seed")}
    training_metrics.metadata.update({**rounded(result["selected"]), **own})
