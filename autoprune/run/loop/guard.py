"""Turns silent ends of a run into errors: exits in the code of a job, and a run folder that disappears."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoprune.errors import RunFailed
from autoprune.run.loop.controller import Append
from autoprune.run.records.folder import RunFolder

OWN = str(Path(__file__).parents[2])


@contextmanager
def guarded() -> Iterator[None]:
    """Turns a BaseException that is not an Exception, raised by code of a job, into RunFailed with its line.

    Examples are SystemExit (`sys.exit()` would end the process without an error), GeneratorExit and asyncio's
    CancelledError. A KeyboardInterrupt, which comes from the user, is not caught.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        said = f"{type(error).__name__}({error})" if str(error) else type(error).__name__
        raise RunFailed(
            f"code of this job raised {said} at {line_of(error)}, which would have ended the process. Return a value "
            "there, or raise an Exception that says what is wrong."
        ) from error


def line_of(error: BaseException) -> str:
    """The file:line where an error was raised, preferably in the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [f for f in frames if not f.filename.startswith((OWN, "<")) and "site-packages" not in f.filename]
    return next((f"{f.filename}:{f.lineno}" for f in reversed(foreign or frames)), "an unknown line")


def watched(folder: RunFolder, append: Append) -> Append:
    """Wraps `append` to raise RunFailed once the journal is no longer in its folder, as writing to a removed file
    raises no error.
    """

    def write(record: Mapping[str, Any]) -> None:
        append(record)
        if not folder.journal.exists():
            raise RunFailed(
                f"{folder.journal} was removed or moved during the run, and later measurements are lost. "
                "Put the folder back and resume the run, or start it again."
            )

    return write
