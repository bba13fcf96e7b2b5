"""The application, the options that commands share, and how results and errors reach a person or a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table

import ppfr
from ppfr.core import PpfrError

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="ppfr",
    help=(
        "Privacy-preserving face recognition: mask faces on the device, train and run recognition on what is left, "
        "attack it, and report accuracy and leakage side by side.\n\n"
        "Start with [bold]ppfr demo[/bold]; it needs no data and takes a few minutes.\n\n"
        "Exit codes: 0 done; 1 ran, but a part failed or a control did not hold; 2 bad input (the message says what "
        "to do); 130 interrupted."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for machines.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Directory of real faces, with lfw112/ and cfp112/ in it. Default: $PPFR_DATA.", show_default=False
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Directory of pretrained networks. Default: $PPFR_WEIGHTS.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps. A device that is missing is an error.")]
Seed = Annotated[int, typer.Option(help="Root of every random draw; the same seed gives the same result.")]
Out = Annotated[Path, typer.Option(help="Directory for everything that is written.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an earlier run in the directory left.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(result: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print a result: one JSON object for a machine, a two-column table for a person."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, default=str) + "\n")
        return
    table = Table(title=title or None, show_header=False, box=None, title_justify="left", title_style="bold")
    for key, value in result.items():
        table.add_row(key.replace("_", " "), "\n".join(map(str, value)) if isinstance(value, list) else str(value))
    out.print(table)


def note(text: str) -> None:
    """Say something to the person on stderr, where it disturbs no pipe."""
    err.print(text)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `ppfr`: runs a command and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; errors are told in one place, without a traceback."""
    wants_json = "--json" in arguments
    try:
        code = app(arguments, standalone_mode=False, prog_name="ppfr")
    except PpfrError as error:
        return _tell(type(error).__name__, str(error), EXIT_BAD_INPUT, wants_json)
    except click.exceptions.NoArgsIsHelpError as error:
        out.print(error.ctx.get_help() if error.ctx else "")
        return EXIT_BAD_INPUT
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ppfr"
        return _tell("UsageError", f"{error.format_message()} (see `{where} --help`)", EXIT_BAD_INPUT, wants_json)
    except (click.Abort, KeyboardInterrupt):
        return _tell(
            "Interrupted", "interrupted; what was finished is kept, and --resume goes on", EXIT_INTERRUPTED, wants_json
        )
    return code if isinstance(code, int) else EXIT_OK


def _tell(kind: str, message: str, code: int, wants_json: bool) -> int:
    if wants_json:
        sys.stdout.write(json.dumps({"error": {"type": kind, "message": message}, "exit_code": code}, indent=2) + "\n")
    else:
        err.print(f"[bold red]error:[/bold red] {escape(message)}")
    return code


def escape(text: str) -> str:
    """Text as it is, whatever brackets it holds."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        out.print(f"ppfr {ppfr.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""
