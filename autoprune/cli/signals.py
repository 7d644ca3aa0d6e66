"""Signals end a command: it cleans up, and the process ends at once if that takes too long."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = tuple(128 + signum for signum in ENDING)
GRACE_SECONDS = 8.0  # batch systems grant ten, and ending the process takes a moment, too


@contextmanager
def interruptible(arrived: list[int]) -> Iterator[None]:
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
