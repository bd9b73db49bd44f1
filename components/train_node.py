"""Train on one of the nodes of a TrainJob: fetch the data from S3, train with the other nodes, send the model to S3.

torchrun --nproc-per-node 1 -m components.train_node s3://bucket/states/irra-1a2b --config '{"lr": 1e-5, ...}'

`components.train_job` starts it. torchrun reads the node's rank and the address of node 0 from the variables PET_*,
which Kubeflow Trainer sets. A SIGTERM stops the training, which goes on from its last state in S3 when it starts again.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from components.s3.exchange import Exchange
from components.stage import guarded
from components.train import Inputs, Outputs, run
from irra.config import TrainConfig, parse_section

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Process:
    """Which process this is: among all, and among those of its node; the variables are torchrun's."""

    rank: int
    local_rank: int
    node: int


def this_process() -> Process:
    """Read the process's place from the environment; without torchrun, it is the only one."""
    return Process(*(int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK", "GROUP_RANK")))


def train(uri: str, checkpoints: str, config: TrainConfig, folder: Path) -> None:
    """Train in `folder` with the data at `uri`; every process of every node calls this.

    Raises:
        UserError: S3 failed, or the training refused its data or configuration.
    """
    process = this_process()
    inputs = fetch(Exchange(uri), folder, process)
    outputs = Outputs(folder / "model", folder / "report", folder / "checkpoints", checkpoints, folder / "run.json")
    result = run(inputs, outputs, config)
    if process.rank == 0:
        Exchange(uri).send_model(outputs.model, outputs.report, result)


def fetch(exchange: Exchange, folder: Path, process: Process) -> Inputs:
    """Download the data once per node. The node's other processes wait; torchrun ends them if the download fails."""
    inputs, fetched = Inputs(folder / "prepared", folder / "tokens"), folder / "fetched"
    if process.local_rank == 0:
        exchange.fetch_data(inputs.prepared, inputs.tokens)
        fetched.touch()
    while not fetched.exists():
        time.sleep(POLL_SECONDS)
    return inputs


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="torchrun -m components.train_node", description=__doc__.split("\n")[0])
    parser.add_argument("uri", help="folder with prepared/ and tokens/, to which model/ and report/ go")
    parser.add_argument("--checkpoints", required=True, metavar="URI", help="where training states go")
    parser.add_argument("--config", required=True, metavar="JSON", help="the section train of the parameters")
    arguments = parser.parse_args()
    # the same in all processes of a node, and another on each node
    folder = Path(tempfile.gettempdir(), f"{Path(arguments.uri).name}-{this_process().node}")
    return guarded(
        lambda: train(arguments.uri, arguments.checkpoints, parse_section(TrainConfig, arguments.config), folder)
    )


if __name__ == "__main__":
    raise SystemExit(main())
