"""The command `autoprune audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.arguments import Data, Model, Plain, Quiet, Run, Settings, read_run
from autoprune.cli.reporting import reported_errors, resumable


def audit(
    ctx: typer.Context,
    folder: Run,
    networks: Annotated[int, typer.Option(help="Half of them measured by the search, half random.")] = 20,
    band: Annotated[
        str | None,
        typer.Option(metavar="COST=LOW..HIGH", help="The budget, such as macs=0.45..0.55 (shares of dense)."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each network.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train set, in place of --steps; 1.")] = None,
    seeds: Annotated[int, typer.Option(help="How often each network is trained.")] = 2,
    scratch: Annotated[bool, typer.Option("--scratch", help="Also train from new random weights.")] = False,
    orders: Annotated[
        str, typer.Option(metavar="CRITERIA", help="Other orders of positions at the same widths, or none.")
    ] = "l1,random",
    lr: Annotated[float, typer.Option(help="The learning rate.")] = 0.01,
    scratch_lr: Annotated[float | None, typer.Option(help="That from new random weights; --lr.")] = None,
    loss: Annotated[str, typer.Option(help="cross_entropy, kl, distillation or mimic.")] = "cross_entropy",
    augment: Annotated[str, typer.Option(help="Random changes of the inputs: none or flip_crop.")] = "none",
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    quiet: Quiet = False,
    plain: Plain = False,
) -> None:
    """Train networks of one budget, and show which value before training foretells the best one."""
    with reported_errors(ctx):
        from autoprune import run

        named = tuple(part.strip() for part in orders.split(",") if part.strip() != "none")
        request = run.AuditRequest(networks, band, steps, epochs, seeds, scratch, named, lr, scratch_lr, loss, augment)
        run.check_audit(folder, request)  # before the imports, which take seconds
        from autoprune import console

        options = {"--band": band, "--steps": steps, "--epochs": epochs}
        job = read_run("audit", folder, options, settings, model, data).resolve()
        with resumable(folder, "audit"), console.progress_display(quiet, plain) as progress:
            found = run.audit(job, folder, request, progress=progress)
        typer.echo(repr(found))
        typer.echo(f"written to {folder / 'audit.json'}, audit.csv and report.html")
