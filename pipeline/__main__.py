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
from pathlib import Path
from typing import Any

from components.stage import guarded
from pipeline import remote, status
from pipeline.choice import add_pipeline_command, check_dataset, choose, read_params
from pipeline.command_line import add_cluster, add_command


def parse() -> argparse.Namespace:
    """Parse the command line. Every command sets `run`, a function of the options."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__, formatter_class=Formatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_commands(commands)
    remote.add_commands(commands)
    status.add_commands(commands)
    return parser.parse_args()


def _add_commands(commands: Any) -> None:
    compiled = add_pipeline_command(commands, "compile", compile_, "write the pipeline as YAML")
    compiled.add_argument(
        "--output", type=Path, help="file (default: build/irra-pipeline.yaml, or irra-ablation-pipeline.yaml)"
    )
    for name, run, what in (
        ("run-local", run_local, "run every task as a subprocess"),
        ("run-docker", run_docker, "run every task in a container"),
    ):
        command = add_pipeline_command(commands, name, run, f"{what} on this machine")
        command.add_argument("--runs", type=Path, default=Path("build/runs"), help="outputs (default: %(default)s)")
    what = "print what a namespace needs to train on several nodes, for `kubectl apply -f -`"
    runtime = add_command(commands, "training-runtime", training_runtime, what)
    add_cluster(runtime)
    runtime.add_argument("--namespace", default="kubeflow", help="that of the runs (default: %(default)s)")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that keeps the examples' lines."""


def compile_(options: argparse.Namespace) -> None:
    """Write the YAML."""
    from pipeline.graph import compile_pipeline
    from pipeline.package import check_image

    check_image(options.image)
    chosen = choose(options)
    path = options.output or Path("build", f"{chosen.pipeline.name}-pipeline.yaml")
    compile_pipeline(chosen.pipeline, path, chosen.values)
    print(f"wrote {path}")


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
