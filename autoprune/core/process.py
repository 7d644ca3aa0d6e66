"""State of the whole process: what user code forks, and numpy's global random state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def ending_forks() -> Iterator[None]:
    """A process that `os.fork` makes inside ends where it would leave, whether it returns or raises.

    Otherwise it would answer for its parent, or go on with the run beside it. No handler runs and no buffer is flushed:
    they are the parent's. It ends with the code of `sys.exit`, with 1 after another exception, else with 0. Children of
    subprocess and multiprocessing never come this far. It is also a decorator.
    """
    owner = os.getpid()
    try:
        yield
    except BaseException as error:
        end_unless(owner, _code(error))
        raise
    end_unless(owner)


def end_unless(owner: int, code: int = 0) -> None:
    """Ends this process, unless it is the owner, with a line on standard error."""
    if os.getpid() == owner:
        return
    line = f"autoprune: process {os.getpid()}, forked by user code from process {owner}, has ended with code {code}: "
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(2, f"{line}it would have gone on with its parent's work\n".encode())
    os._exit(code)


def _code(error: BaseException) -> int:
    """What a process ends with that nobody stops an exception in."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    return 1


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """numpy's global generator starts from the seed inside; afterwards it is as before."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
