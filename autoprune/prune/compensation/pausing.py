"""Forward passes that pause, so that several of them go through a network side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class PausingPass:
    """A computation in a thread of its own, which runs only between `resume` and the next `pause`.

    It is always either this computation that runs or the one that called `resume`, never both.

    Args:
        run: the computation; it may call `pause`.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._event: Any = None
        self._answer: Any = None
        self._error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._main, daemon=True)

    def resume(self, answer: Any = None) -> Any:
        """Lets it run until it pauses or ends.

        Args:
            answer: the value that its present `pause` returns.

        Returns:
            The argument of the next `pause`; None at the end. What the computation raises is raised here.
        """
        self._answer, self._event = answer, None
        if not self._thread.ident:
            self._thread.start()
        elif not self._thread.is_alive():
            return None
        self._turn.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._event

    def pause(self, event: Any) -> Any:
        """Called by the computation: hands an event over and waits; returns the answer to it."""
        self._event = event
        self._back.release()
        self._turn.acquire()
        if self._closing:
            raise _Closed
        return self._answer

    def close(self) -> None:
        """Ends the computation where it is."""
        if self._thread.is_alive():
            self._closing = True
            self._turn.release()
            self._thread.join()

    def _main(self) -> None:
        self._turn.acquire()
        try:
            if not self._closing:
                self._run()
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._back.release()


class _Closed(BaseException):
    """Unwinds a computation that is closed."""
