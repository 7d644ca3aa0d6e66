"""Process-wide state: forks of user code, and numpy's global random state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def ending_forks() -> Iterator[None]:
    """Ends any process that `os.fork` creates inside when it leaves the block, whether it returns or raises.

    Otherwise the child would answer for its parent, or continue the run beside it. No handler runs and no buffer is
    flushed: they belong to the parent. The exit code is that of `sys.exit`, 1 after another exception, else 0. Children
    of subprocess and multiprocessing never reach this point. Also usable as a decorator.
    """
    owner = os.getpid()
    try:
        yield
    except BaseException as error:
        end_unless(owner, _code(error))
        raise
    end_unless(owner)


def end_unless(owner: int, code: int = 0) -> None:
    """Ends this process with a line on standard error, unless it is the owner."""
    if os.getpid() == owner:
        return
    line = f"autoprune: process {os.getpid()}, forked by user code from process {owner}, has ended with code {code}: "
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(2, f"{line}it would have gone on with its parent's work\n".encode())
    os._exit(code)


def _code(error: BaseException) -> int:
    """The exit code of a process that ends with an uncaught exception."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    return 1


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator inside the block and restores its state afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
