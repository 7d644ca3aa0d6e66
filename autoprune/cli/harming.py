"""The command `autoprune harm`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.arguments import PICKS, Data, Model, Plain, Quiet, Run, Settings, read_run
from autoprune.cli.reporting import reported_errors


def harm(
    ctx: typer.Context,
    folder: Run,
    pick: Annotated[str | None, typer.Option(metavar="WHICH", help=PICKS)] = None,
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    quiet: Quiet = False,
    plain: Plain = False,
) -> None:
    """Show which classes, groups and corrupted inputs a network of a run fails, beside the dense network."""
    with reported_errors(ctx):
        from autoprune import run

        shown = run.show_front(folder, pick)  # before the imports, which take seconds
        from autoprune import console

        job = read_run("harm", folder, {"--pick": pick}, settings, model, data).resolve()
        with console.progress_display(quiet, plain) as progress:
            found = run.harm(job, folder, pick, progress=progress)
        for name, values in found.items():
            typer.echo(run.worded(name, values))
        accuracies = {member.candidate: member.report.get("accuracy") for member in shown.members}
        if said := run.lottery({name: (accuracies[name], values) for name, values in found.items()}):
            typer.echo(said)
        if shown.why:
            typer.echo(shown.why)
        typer.echo(f"written to {folder / 'harm.json'} and report.html")
