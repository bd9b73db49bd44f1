"""What several commands share. Nothing here imports kfp, which takes a second: `--help` should not."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.server.client import Server

CLUSTER = Path(__file__).with_name("cluster.yaml")
CREDENTIALS = (
    "KF_PIPELINES_COOKIE holds the session cookie of a login page, as name=value. If the UI has its own address, "
    "set KF_PIPELINES_UI_ENDPOINT. A server without a login needs neither token nor cookie."
)


def add_command(commands: Any, name: str, run: Callable[..., None], what: str) -> argparse.ArgumentParser:
    """Add a command that calls `run` with the options; `what` it does begins in lower case."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.set_defaults(run=run)
    return command


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Add the cluster settings."""
    command.add_argument("--cluster", type=Path, default=CLUSTER, help="cluster settings (default: %(default)s)")


def add_server(command: argparse.ArgumentParser) -> None:
    """Add a server and the way to it. Credentials have no options: other users can read a command line."""
    command.epilog = CREDENTIALS
    command.add_argument("--host", default="", help="address of the server (default: KF_PIPELINES_ENDPOINT)")
    command.add_argument("--namespace", help="your profile, if several users share the server")
    command.add_argument("--token-file", type=Path, help="bearer token (default: KF_PIPELINES_TOKEN, or a pod's own)")
    command.add_argument("--ca-certificate", type=Path, help="PEM file, if the server has a private certificate")


def chosen_server(options: argparse.Namespace) -> "Server":
    """Return the server that the options of `add_server` name."""
    from pipeline.server.client import Server

    return Server(options.host, options.namespace, options.token_file, options.ca_certificate)


def warn(message: str) -> None:
    """Print a warning."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
