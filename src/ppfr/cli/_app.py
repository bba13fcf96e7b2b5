"""The typer application, options shared by commands, and output of results and errors as text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import ppfr
from ppfr.cli._completion import DEVICES, offering
from ppfr.cli._display import rows_of
from ppfr.core import PpfrError, limit_spinning

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="ppfr",
    help=(
        "Privacy-preserving face recognition: mask faces on the device, train and run recognition on masked images, "
        "attack the protection, and report accuracy and leakage side by side.\n\n"
        "Start with [bold]ppfr demo[/bold]; it needs no data and takes a few minutes. [bold]ppfr doctor[/bold] shows "
        "what this machine can run.\n\n"
        "Exit codes: 0 success; 1 completed, but a stage or a control failed; 2 invalid input (the message names the "
        "remedy); 130 interrupted."
    ),
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print results and errors as one JSON object on stdout.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Directory of real faces, which contains lfw112/ and cfp112/. Default: $PPFR_DATA.", show_default=False
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Directory of pretrained networks. Default: $PPFR_WEIGHTS.", show_default=False),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:N or mps. An unavailable device is an error.",
        autocompletion=offering(lambda: DEVICES),
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers; the same seed gives the same result.")]
Out = Annotated[Path, typer.Option(help="Output directory.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in the output directory.")]


def emit(result: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print a result on stdout, as one JSON object or as labelled lines."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, default=str) + "\n")
        return
    rows = list(rows_of(result))
    width = max((len(label) for label, _ in rows), default=0)
    if title:
        typer.secho(title, bold=True)
    for label, text in rows:
        first, *more = text.split("\n")
        typer.echo(f"  {label:<{width}}  {first}")
        for line in more:
            typer.echo(f"  {'':<{width}}  {line}")


def note(text: str) -> None:
    """Print a note on stderr, so that stdout can be piped."""
    Console(stderr=True, highlight=False).print(escape(text), soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `ppfr`: run a command and exit with its code. Sets how threads wait; see `limit_spinning`."""
    limit_spinning()  # before a command loads torch
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command, print its error if it fails, and return the exit code.

    Errors that a user can correct are printed without a traceback. Any other exception is a bug and propagates.
    """
    wants_json = "--json" in arguments
    try:
        code = app(arguments, standalone_mode=False, prog_name="ppfr")
    except PpfrError as error:
        return _print_error(type(error).__name__, str(error), EXIT_BAD_INPUT, wants_json)
    except typer.TyperException as error:  # an option or argument that does not exist, is missing or malformed
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "ppfr"
        return _print_error("UsageError", f"{error.format_message()} See `{where} --help`.", EXIT_BAD_INPUT, wants_json)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _print_error(type(error).__name__, f"{place}{error.strerror or error}", EXIT_BAD_INPUT, wants_json)
    if code == EXIT_INTERRUPTED:  # typer converts an interrupt within a command into this code, without a message
        message = "Interrupted. Completed stages were kept; run the same command with --resume to continue."
        return _print_error("Interrupted", message, EXIT_INTERRUPTED, wants_json)
    return code if isinstance(code, int) else EXIT_OK


def _print_error(kind: str, message: str, code: int, wants_json: bool) -> int:
    if wants_json:
        sys.stdout.write(json.dumps({"error": {"type": kind, "message": message}, "exit_code": code}, indent=2) + "\n")
    else:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)
    return code


def help_if_alone(context: typer.Context) -> None:
    """Print the help of a group that was called without a command, and exit with the code for invalid input."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help().rstrip() + "\n")
        raise typer.Exit(EXIT_BAD_INPUT)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        sys.stdout.write(f"ppfr {ppfr.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    help_if_alone(context)
