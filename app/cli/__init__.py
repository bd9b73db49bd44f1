"""The command line `irra`: search, index, forget, import, export, describe.

irra search "a woman in a red coat with a white handbag"

Commands import what they need when they run, so that help and option errors never wait for torch.
"""

from typing import Annotated

import typer

from app.cli.console import command
from app.cli.export import export
from app.cli.forget import forget
from app.cli.import_official import import_official
from app.cli.index import index, print_update
from app.cli.info import info
from app.cli.search import print_hits, search

# Help without boxes takes half the space and a third of the time.
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command()(command(search, print_hits))
app.command()(command(index, print_update))
for work in (forget, import_official, export, info):
    app.command()(command(work))


def print_version(wanted: bool) -> None:
    """Print the version and exit, if the option is given."""
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

    Exit status: 0 on success, 1 if output cannot be written (disk full, no permission), 2 for a mistake in options,
    files or queries, 130 when interrupted. Standard output holds only the answer; messages go to
    standard error.

    Shell completion: run irra --install-completion once, then open a new shell.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line, and exit."""
    app(prog_name="irra")
