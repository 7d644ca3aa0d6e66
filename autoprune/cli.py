"""The command line: it parses arguments, calls `autoprune.run` and prints the result. It holds no other logic.

Exit codes: 0 for success; 2 for a wrong config, argument or model; 1 for a failed run; 130 after SIGINT; 143 after
SIGTERM.
"""

from __future__ import annotations

import json
import math
import os
import select
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from autoprune import __version__
from autoprune.errors import AutopruneError, ConfigError, DataError, InfeasibleBudget, Interrupted, UnsupportedModel

if TYPE_CHECKING:
    from autoprune.config import JobSpec
    from autoprune.run import RunResult

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # subcommands take it from here
)

Config = Annotated[
    Path,
    typer.Argument(
        help="A job file: your own, or one that comes with autoprune, such as configs/quickstart.yaml.",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Argument(help="The folder of a run, such as results/quickstart.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODULE:FUNCTION", help="The function that builds the model, for a run started from Python."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="MODULE:FUNCTION", help="The function that builds the data, for a run started from Python."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job, such as search.evaluations=100."),
]
PICKS = (
    "The network to choose. 'macs<=0.5' chooses the best measured network within bounds on costs (a value up to 1 is a "
    "share of the dense network's cost). 'accuracy>=0.97' chooses the cheapest network, by the first cost, within "
    "bounds on measurements; bounds on both choose the best measured network. '#3' chooses that row of the front, "
    "and '2-2-2-4' that candidate."
)
FORMATS = (
    "The format to write. 'autoprune' writes recipe.json and weights.safetensors; 'pt2' writes network.pt2, a "
    "torch.export program; 'pkg.mod:name' or 'path/to/file.py:name' calls an exporter of your own."
)
Pick = Annotated[str, typer.Option(metavar="WHICH", help=PICKS)]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write; it must not exist yet.")]
Plain = Annotated[bool, typer.Option("--plain", help="Show progress as lines, for a log.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

ENDING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = tuple(128 + signum for signum in ENDING)
GRACE_SECONDS = 8.0  # batch systems grant ten, and ending the process takes a moment, too


class Format(StrEnum):
    """How a front is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def main() -> None:
    """Runs the console script. Plug-ins in the current directory can be imported, as with `python -m`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app(prog_name="autoprune")
    except SystemExit as ending:
        if ending.code in INTERRUPTED:  # everything is closed by now, and unloading large libraries takes seconds
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.code)
        raise


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
    with _reporting(ctx):
        from autoprune import config as configs
        from autoprune import console, run
        from autoprune.run.records.folder import check_place, write_text

        spec = _told(configs.load(config, settings or ()))
        place = None if json_file is None else json_file.absolute()  # the job's code may change the current directory
        if place is not None:
            check_place(place)
        with _placed(spec):
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
    with _reporting(ctx):
        from autoprune.run.records.folder import RunFolder, next_free

        if out is not None:
            RunFolder.check_free(out)  # before the imports, which take seconds
        from autoprune import config as configs
        from autoprune import console, run

        spec = _told(configs.load(config, settings or ()))
        folder = out or next_free(Path("results") / spec.name)
        with _placed(spec), _resumable(folder), console.progress_display(quiet, plain) as progress:
            result = run.search(spec.resolve(), folder, progress=progress)
        _print_result(result, folder)


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
    with _reporting(ctx):
        from autoprune import config as configs
        from autoprune import console, run

        typed = _typed("resume", folder, {"--fork": fork, "--model": model, "--data": data})
        job = _told(configs.load_run(folder, _named(settings, model, data), typed)).resolve()
        with _resumable(fork or folder), console.progress_display(quiet, plain) as progress:
            if fork is None:
                result = run.resume(job, folder, progress=progress, repair=repair)
            else:
                result = run.search(job, fork, progress=progress, answers=folder)
        _print_result(result, fork or folder)


@app.command()
def front(
    ctx: typer.Context,
    folder: Run,
    form: Annotated[Format, typer.Option("--format", help="The format to print.")] = Format.table,
    pick: Annotated[str | None, typer.Option(metavar="WHICH", help=PICKS)] = None,
    to_optuna: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Write every evaluation to a database, such as sqlite:///study.db."),
    ] = None,
) -> None:
    """Print the front of a run, or write the run as an Optuna study."""
    with _reporting(ctx):
        from autoprune import console, run

        if to_optuna is None:
            found = run.show_front(folder, pick)
            console.print_members(found.members, form, found.numbers)
            if found.why:
                typer.echo(found.why, err=form is not Format.table)
            if form is Format.table:
                console.print_left_out(found.left_out)
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
    with _reporting(ctx):
        from autoprune import run

        run.check_solve(folder, budget, out)  # before the imports, which take seconds
        from autoprune import config as configs
        from autoprune import console

        typed = _typed("solve", folder, {"--budget": budget, "--out": out, "--model": model, "--data": data})
        job = configs.load_run(folder, _named(settings, model, data), typed).resolve()
        with console.progress_display(quiet) as progress:
            member = run.solve(job, folder, budget, out, progress=progress)
        console.print_members([member])
        if out is not None:
            _print_export(out)


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
    with _reporting(ctx):
        from autoprune import run

        why = run.check_export(folder, pick, out, format).why  # before the imports, which take seconds
        from autoprune import config as configs
        from autoprune import console

        own = None if format == "autoprune" else format
        options = {"--pick": pick, "--out": out, "--format": own, "--model": model, "--data": data}
        typed = _typed("export", folder, options)
        job = configs.load_run(folder, _named(settings, model, data), typed).resolve()
        with console.progress_display(quiet) as progress:
            member = run.export(job, folder, pick, out, progress=progress, format=format)
        console.print_members([member])
        typer.echo(why)
        _print_export(out, format)


@app.command()
def report(ctx: typer.Context, folder: Run) -> None:
    """Write the report of a run, report.html, again."""
    with _reporting(ctx):
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
    with _reporting(ctx):
        from autoprune import config as configs
        from autoprune import console, run

        spec = _told(configs.load(config, settings or ()))
        with _placed(spec), console.progress_display(quiet, plain) as progress:
            found = run.find_criterion(spec.resolve(), out, evaluations=evaluations, seed=seed, progress=progress)
        typer.echo(f"{run.table_of(found)}\nfound:  {found.formula}")
        setting = f"criterion={{call: {out}:scores}}"
        typer.echo(f"next:   autoprune search {shlex.quote(str(config))} --set {shlex.quote(setting)}")


def _told(spec: JobSpec) -> JobSpec:
    """Returns the job after printing each remark on how it was read, one line each, on standard error."""
    for remark in spec.remarks:
        typer.echo(remark, err=True)
    return spec


def _named(settings: list[str] | None, model: str | None, data: str | None) -> list[str]:
    """The settings, with the values of --model and --data in the form that --set takes."""
    named = {"model": model, "data": data}
    return [*(f"{key}={json.dumps({'call': name})}" for key, name in named.items() if name), *(settings or ())]


def _typed(command: str, folder: Path, options: Mapping[str, object]) -> str:
    """A command as the user types it, without --set."""
    given = [word for key, value in options.items() if value is not None for word in (key, str(value))]
    return shlex.join(["autoprune", command, str(folder), *given])


def _print_result(result: RunResult, folder: Path) -> None:
    """Prints the front, the folder that holds it, and a command to type next."""
    from autoprune import console

    console.print_members(result.members, numbers=range(1, len(result.members) + 1))
    console.print_dense(result.members)
    console.print_left_out(result.left_out)
    typer.echo(f"sums:   {result.additivity}")
    if result.remark:
        typer.echo(f"search: {result.remark}")
    if result.failures:
        typer.echo(f"failed: {result.failures}")
    typer.echo(f"ended:  {result.ended}\nrun:    {folder}\nreport: {folder / 'report.html'}")
    if result.members:
        ratio = result.members[len(result.members) // 2].ratios["macs"]
        pick = f"macs<={math.ceil(ratio * 100) / 100:g}"  # rounded up, so that it picks a network
        name = shlex.quote(str(folder))
        typer.echo(f"next:   autoprune export {name} --pick '{pick}' --out {name}-small")


def _print_export(out: Path, format: str = "autoprune") -> None:
    loading = {
        "autoprune": f"; load it with autoprune.load(fresh_model, {str(out)!r})",
        "pt2": f"; load it with torch.export.load({str(out / 'network.pt2')!r}).module()",
    }
    typer.echo(f"written to {out}{loading.get(format, '')}")


@contextmanager
def _interruptible(arrived: list[int]) -> Iterator[None]:
    """Raises Interrupted inside the block at SIGINT or SIGTERM, so that it can clean up.

    A second signal ends the process at once, and so does a block that takes longer than `GRACE_SECONDS`. Either way no
    measurement is lost: each is in the journal before anything else happens with it. The signal is added to `arrived`,
    because a library may raise its own KeyboardInterrupt in place of ours, as Ray does.
    """

    def end(signum: int, frame: object) -> None:
        if not arrived:
            arrived.append(signum)
            raise Interrupted(signum)

    heard, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_exit_when_late, args=(heard,), daemon=True).start()
    before = {signum: signal.signal(signum, end) for signum in ENDING}
    wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        os.close(told)


def _exit_when_late(heard: int) -> None:
    """Reads the signals that arrive, one byte each, until the pipe is closed, and ends the process when it must.

    It runs in its own thread, because Python calls signal handlers only when the main thread is back from a library.
    """
    first = 0
    while select.select([heard], [], [], GRACE_SECONDS if first else None)[0]:
        byte = os.read(heard, 1)
        if not byte:  # the block has ended
            os.close(heard)
            return
        if first and byte[0] in ENDING:
            break
        if byte[0] in ENDING:
            first = byte[0]
    os._exit(128 + first)


@contextmanager
def _reporting(ctx: typer.Context) -> Iterator[None]:
    """Turns an error or a signal inside the block into one message on standard error and an exit code."""
    arrived: list[int] = []
    try:
        with _interruptible(arrived):
            yield
    except BrokenPipeError:  # `autoprune front RUN | head`; typer ends quietly
        raise
    except KeyboardInterrupt as interrupt:
        signum = arrived[0] if arrived else signal.SIGINT
        _fail(ctx, "\n".join(["interrupted", *_notes(interrupt)]), Interrupted(signum).exit_code)
    except AutopruneError as error:
        _fail(ctx, "\n".join([f"error: {_message(error)}", *_notes(error)]), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(ctx, "\n".join([f"error: {where}{error.strerror or error}", *_notes(error)]), 1)
    except SystemExit as error:
        _fail(ctx, f"error: code that this command runs called sys.exit({error.code!r}). Raise an error instead.", 1)
    except Exception as error:
        hint = f"This error is unexpected; `autoprune --traceback {ctx.info_name} ...` shows where it came from."
        _fail(ctx, "\n".join([f"error: {type(error).__name__}: {error}", *_notes(error), hint]), 1)


def _fail(ctx: typer.Context, message: str, code: int) -> NoReturn:
    if ctx.obj:
        traceback.print_exc()
    typer.echo(message, err=True)
    raise typer.Exit(code)


def _message(error: AutopruneError) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return "\n  ".join([f"{len(error.problems)} mistakes", *error.problems])
    return str(error)


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


@contextmanager
def _placed(spec: JobSpec) -> Iterator[None]:
    """Adds to an error of a running job a note that says where in the job file its cause is written."""
    try:
        yield
    except AutopruneError as error:
        causes = {InfeasibleBudget: "objectives", DataError: "data", UnsupportedModel: "model"}
        for section in (section for kind, section in causes.items() if isinstance(error, kind)):
            error.add_note(f"The {section} of this job: {spec.where(section)}")
        raise


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Adds to an interrupt or an OSError a note that says how to continue the run."""
    job = (folder / "job.yaml").absolute()  # the job's own code may change the current directory
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if not isinstance(error, AutopruneError) and job.exists():
            error.add_note(f"All measurements are kept; continue with: autoprune resume {shlex.quote(str(folder))}")
        raise
