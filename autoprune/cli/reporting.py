"""Errors and signals as one message on standard error and an exit code."""

from __future__ import annotations

import shlex
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from autoprune.cli.signals import interruptible
from autoprune.errors import AutopruneError, ConfigError, DataError, InfeasibleBudget, Interrupted, UnsupportedModel

if TYPE_CHECKING:
    from autoprune.config import JobSpec


@contextmanager
def reported_errors(ctx: typer.Context) -> Iterator[None]:
    """Turns an error or a signal inside the block into one message on standard error and an exit code."""
    arrived: list[int] = []
    try:
        with interruptible(arrived):
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
def located_errors(spec: JobSpec) -> Iterator[None]:
    """Adds to an error of a running job a note that says where in the job file its cause is written."""
    try:
        yield
    except AutopruneError as error:
        causes = {InfeasibleBudget: "objectives", DataError: "data", UnsupportedModel: "model"}
        for section in (section for kind, section in causes.items() if isinstance(error, kind)):
            error.add_note(f"The {section} of this job: {spec.where(section)}")
        raise


@contextmanager
def resumable(folder: Path, command: str = "resume") -> Iterator[None]:
    """Adds to an interrupt or an OSError a note that says which command continues the run."""
    job = (folder / "job.yaml").absolute()  # the job's own code may change the current directory
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if not isinstance(error, AutopruneError) and job.exists():
            error.add_note(f"All measurements are kept; continue with: autoprune {command} {shlex.quote(str(folder))}")
        raise
