"""The command `autoprune recover`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from autoprune.cli.arguments import (
    FORMATS,
    Data,
    Model,
    Out,
    Pick,
    Plain,
    Quiet,
    Run,
    Settings,
    read_run,
)
from autoprune.cli.printing import print_export
from autoprune.cli.reporting import reported_errors


def recover(
    ctx: typer.Context,
    folder: Run,
    pick: Pick,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train set.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of --epochs.")] = None,
    out: Out = None,
    format: Annotated[str, typer.Option(metavar="NAME", help=FORMATS)] = "autoprune",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of this recovery; that of the network by default.")
    ] = None,
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    quiet: Quiet = False,
    plain: Plain = False,
) -> None:
    """Train one network of a run until it is deployed. A training that was stopped goes on where it was."""
    with reported_errors(ctx):
        from autoprune import run

        why = run.check_recover(folder, pick, out, format, name).why  # before the imports, which take seconds
        from autoprune import console

        own = None if format == "autoprune" else format
        options = {"--pick": pick, "--epochs": epochs, "--steps": steps, "--out": out, "--format": own, "--name": name}
        overrides = [*_length(epochs, steps), *(settings or ())]
        job = read_run("recover", folder, options, overrides, model, data).resolve()
        if first := os.environ.get("RANK", "0") == "0":  # of several processes that train the network together
            typer.echo(why)
        with console.progress_display(quiet or not first, plain) as progress:
            found = run.recover(job, folder, pick, out, name, progress, format)
        if not first:
            return
        console.print_recovered([found])
        if out is not None:
            print_export(out, format)


def _length(epochs: int | None, steps: int | None) -> list[str]:
    """The settings of a length of training, which replaces that of the job file."""
    if epochs is None and steps is None:
        return []
    given = {"epochs": epochs, "steps": steps}
    return [f"recover.{key}={'null' if value is None else value}" for key, value in given.items()]
