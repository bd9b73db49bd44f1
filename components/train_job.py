"""Train on several nodes: send the data to S3, train with a TrainJob, and fetch its model.

A task of Kubeflow Pipelines does this in a small pod. The pods of the TrainJob do the work: `components.train_node`.
"""

import hashlib
import json
import os
from typing import Any

from components.kubeflow_trainer import Nodes, TrainJob, connect, train
from components.s3.exchange import Exchange
from components.train import Inputs, Outputs
from irra.config import TrainConfig
from irra.utils.errors import UserError

# What Kubeflow's MLflow plugin sets in the task's pod is as useful in the pods that train.
FROM_TASK = (
    *("IRRA_IMAGE", "IRRA_ABLATION", "KFP_RUN_ID"),
    *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"),
)


def run(inputs: Inputs, outputs: Outputs, config: TrainConfig, nodes: Nodes) -> dict[str, Any]:
    """Do what `components.train.run` does, on several nodes. A retry finds the TrainJob of the attempt before it.

    Returns:
        What `components.train.run` returned on node 0.

    Raises:
        UserError: There is no folder in S3 for checkpoints, the package kubeflow or the TrainingRuntime is missing, or
            the training failed or took too long.
    """
    if not outputs.checkpoints_uri:
        raise UserError("train_checkpoints: is empty; nodes share data and states in S3, such as s3://bucket/states")
    job = describe(outputs.checkpoints_uri.rstrip("/"), config, nodes)
    exchange = Exchange(f"{outputs.checkpoints_uri.rstrip('/')}/{job.name}")
    if not exchange.has_model():
        client = connect()  # first: an upload takes long
        exchange.send_data(inputs.prepared, inputs.tokens)
        train(client, job)
        if not exchange.has_model():
            raise UserError(f"TrainJob {job.name} is complete, but there is no model at {exchange.uri}")
    return exchange.fetch_model(outputs.model, outputs.report)


def describe(checkpoints: str, config: TrainConfig, nodes: Nodes) -> TrainJob:
    """Return the TrainJob of a training, whose states go to `checkpoints` and whose data are in a folder below."""
    text, kfp_run = json.dumps(config.model_dump()), os.environ["KFP_RUN_ID"]
    name = job_name(kfp_run, text)
    command = ["--nproc-per-node", str(nodes.processes), "-m", "components.train_node", f"{checkpoints}/{name}"]
    return TrainJob(
        name=name,
        kfp_run=kfp_run,
        image=os.environ["IRRA_IMAGE"],
        nodes=nodes,
        arguments=[*command, "--checkpoints", checkpoints, "--config", text],
        environment={key: os.environ[key] for key in (*nodes.environment, *FROM_TASK) if key in os.environ},
    )


def job_name(kfp_run: str, config: str) -> str:
    """Return the name of a training's TrainJob: the run's id, and a hash, because an ablation trains several times.

    Of the 63 characters that Kubernetes allows, the names of its pods and their hosts need some: this has 44.
    """
    return f"irra-{kfp_run.replace('-', '')[:32]}-{hashlib.sha256(config.encode()).hexdigest()[:6]}".lower()
