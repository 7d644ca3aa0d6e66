"""The commands: each parses its arguments, calls `autoprune.run` and prints the result.

What takes seconds to import is imported within a command, after the checks that need none of it.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from autoprune import __version__
from autoprune.cli.arguments import (
    FORMATS,
    PICKS,
    Config,
    Data,
    Format,
    Model,
    Out,
    Pick,
    Plain,
    Quiet,
    Run,
    Settings,
    read_run,
)
from autoprune.cli.printing import print_export, print_result, told
from autoprune.cli.reporting import located_errors, reported_errors, resumable

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # subcommands take it from here
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"autoprune {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", envvar="AUTOPRUNE_TRACEBACK", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Search-based structural pruning: turn a trained network into a Pareto front of smaller networks."""
    ctx.obj = show_traceback


@app.command()
def inspect(
    ctx: typer.Context,
    config: Config,
    settings: Settings = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write everything to a JSON file.")
    ] = None,
) -> None:
    """Show the units, their levels, the reachable range of every cost, and the frozen parts with reasons."""
    with reported_errors(ctx):
        from autoprune import config as configs
        from autoprune import console, run
        from autoprune.run.records.folder import check_place, write_text

        spec = told(configs.load(config, settings or ()))
        place = None if json_file is None else json_file.absolute()  # the job's code may change the current directory
        if place is not None:
            check_place(place)
        with located_errors(spec):
            inspection = run.inspect_job(spec.resolve())
        console.print_inspection(inspection)
        if place is not None:
            write_text(place, json.dumps(inspection.to_json(), indent=2) + "\n")


@app.command()
def search(
    ctx: typer.Context,
    config: Config,
    settings: Settings = None,
    out: Out = None,
    quiet: Quiet = False,
    plain: Plain = False,
) -> None:
    """Search for the front of a job and write it to a run folder (results/NAME unless --out names another)."""
    with reported_errors(ctx):
        from autoprune.run.records.folder import RunFolder, next_free

        if out is not None:
            RunFolder.check_free(out)  # before the imports, which take seconds
        from autoprune import config as configs
        from autoprune import console, run

        spec = told(configs.load(config, settings or ()))
        folder = out or next_free(Path("results") / spec.name)
        with located_errors(spec), resumable(folder), console.progress_display(quiet, plain) as progress:
            result = run.search(spec.resolve(), folder, progress=progress)
        print_result(result, folder)


@app.command()
def resume(
    ctx: typer.Context,
    folder: Run,
    settings: Settings = None,
    repair: Annotated[bool, typer.Option("--repair", help="First set damaged lines of the journal aside.")] = False,
    fork: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Start a new run in this folder, with the evaluations that are still valid."),
    ] = None,
    model: Model = None,
    data: Data = None,
    quiet: Quiet = False,
    plain: Plain = False,
) -> None:
    """Continue an interrupted run. The result is the same as without the interruption."""
    with reported_errors(ctx):
        from autoprune import console, run

        job = told(read_run("resume", folder, {"--fork": fork}, settings, model, data)).resolve()
        with resumable(fork or folder), console.progress_display(quiet, plain) as progress:
            if fork is None:
                result = run.resume(job, folder, progress=progress, repair=repair)
            else:
                result = run.search(job, fork, progress=progress, answers=folder)
        print_result(result, fork or folder)


@app.command()
def front(
    ctx: typer.Context,
    folder: Run,
    form: Annotated[Format, typer.Option("--format", help="The format to print.")] = Format.table,
    pick: Annotated[str | None, typer.Option(metavar="WHICH", help=PICKS)] = None,
    harm: Annotated[
        bool, typer.Option("--harm", help="Also show the agreement with the dense network and the recalls of classes.")
    ] = False,
    to_optuna: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Write every evaluation to a database, such as sqlite:///study.db."),
    ] = None,
) -> None:
    """Print the front of a run, or write the run as an Optuna study."""
    with reported_errors(ctx):
        from autoprune import console, run

        if to_optuna is None:
            found = run.show_front(folder, pick)
            members = [member.with_harm() for member in found.members] if harm else found.members
            console.print_members(members, form, found.numbers)
            if found.why:
                typer.echo(found.why, err=form is not Format.table)
            if form is Format.table:
                console.print_left_out(found.left_out)
                console.print_recovered(run.read_recovered(folder))
        else:
            study = run.export_study(folder, to_optuna)
            state = "written" if study.written else "already there"
            typer.echo(f"study {study.name!r}, {study.trials} trials: {state}")
            typer.echo(f"view it with: optuna-dashboard {shlex.quote(to_optuna)}")


@app.command()
def solve(
    ctx: typer.Context,
    folder: Run,
    budget: Annotated[
        str, typer.Option(metavar="COST=VALUE", help="A budget, such as macs=0.4 (a share of dense) or params=1e5.")
    ],
    out: Out = None,
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """Find a network for another budget from the measurements of a run, without new probes."""
    with reported_errors(ctx):
        from autoprune import run

        run.check_solve(folder, budget, out)  # before the imports, which take seconds
        from autoprune import console

        job = read_run("solve", folder, {"--budget": budget, "--out": out}, settings, model, data).resolve()
        with console.progress_display(quiet) as progress:
            member = run.solve(job, folder, budget, out, progress=progress)
        console.print_members([member])
        if out is not None:
            print_export(out)


@app.command()
def export(
    ctx: typer.Context,
    folder: Run,
    pick: Pick,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write; it must not exist yet.")],
    format: Annotated[str, typer.Option(metavar="NAME", help=FORMATS)] = "autoprune",
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """Write one network of a run, as recipe.json and weights.safetensors or in another format."""
    with reported_errors(ctx):
        from autoprune import run

        why = run.check_export(folder, pick, out, format).why  # before the imports, which take seconds
        from autoprune import console

        own = None if format == "autoprune" else format
        options = {"--pick": pick, "--out": out, "--format": own}
        job = read_run("export", folder, options, settings, model, data).resolve()
        with console.progress_display(quiet) as progress:
            member = run.export(job, folder, pick, out, progress=progress, format=format)
        console.print_members([member])
        typer.echo(why)
        print_export(out, format)


@app.command()
def report(ctx: typer.Context, folder: Run) -> None:
    """Write the report of a run, report.html, again."""
    with reported_errors(ctx):
        from autoprune import run

        typer.echo(f"report: {run.write_report(folder)}")


@app.command()
def criterion(
    ctx: typer.Context,
    config: Config,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The Python file to write; it must not exist yet.")],
    settings: Settings = None,
    evaluations: Annotated[int, typer.Option(min=1, max=10_000_000, help="The number of formulas to measure.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The seed of every random choice.")] = 0,
    quiet: Quiet = False,
    plain: Plain = False,
) -> None:
    """Search for a criterion (a formula of weights, inputs and gradients) and write it as a plug-in."""
    with reported_errors(ctx):
        from autoprune import config as configs
        from autoprune import console, run

        spec = told(configs.load(config, settings or ()))
        with located_errors(spec), console.progress_display(quiet, plain) as progress:
            found = run.find_criterion(spec.resolve(), out, evaluations=evaluations, seed=seed, progress=progress)
        typer.echo(f"{run.table_of(found)}\nfound:  {found.formula}")
        setting = f"criterion={{call: {out}:scores}}"
        typer.echo(f"next:   autoprune search {shlex.quote(str(config))} --set {shlex.quote(setting)}")
