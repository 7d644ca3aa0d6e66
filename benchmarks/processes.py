"""A call in a process of its own, timed, with the memory it took."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What a call returned, its wall-clock seconds, and by how many MiB the process grew at most."""

    result: Any
    seconds: float
    peak_mib: float


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Calls a picklable function with picklable arguments in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measured: Measured = pool.apply(_measured, (function, arguments))
    return measured


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Measured:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - start
    return Measured(result, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
