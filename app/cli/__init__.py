"""The command line `irra`: search, index, import, export, describe.

irra search "a woman in a red coat with a white handbag"

Commands import what they need when they run, so that help and mistakes in options never wait for torch.
"""

from typing import Annotated

import typer

from app.cli.console import command
from app.cli.export import export
from app.cli.import_official import import_official
from app.cli.index import index, print_update
from app.cli.info import info
from app.cli.search import print_hits, search

# Help without boxes: it is read in half the space and drawn in a third of the time.
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command()(command(search, print_hits))
app.command()(command(index, print_update))
for work in (import_official, export, info):
    app.command()(command(work))


def print_version(wanted: bool) -> None:
    """Print the version and stop, where it is wanted."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"irra {version('irra-pipeline')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def irra(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find the pictures of people that a sentence describes.

    Example: irra search "a woman in a red coat with a white handbag"

    Exit status: 0 when done, 1 where nothing can be written (no room, no permission), 2 for a mistake in options, files
    or queries, 130 when interrupted. Messages go to standard error, answers alone to standard output.

    Shell completion: run irra --install-completion once, then open a new shell.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line of this process, and exit."""
    app(prog_name="irra")
