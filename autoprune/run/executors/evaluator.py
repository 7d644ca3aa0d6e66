"""Opens the evaluator of a job: this process, worker processes or Ray actors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.core.contracts import Evaluator
from autoprune.errors import ConfigError, RunFailed
from autoprune.measure.scorer import Scorer
from autoprune.run.executors.computing import computing
from autoprune.run.executors.pool import OnEvent, Pool, Site
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.session.job import Executor


@contextmanager
def open_evaluator(executor: Executor, scorer: Scorer, on_event: OnEvent) -> Iterator[Evaluator]:
    """Yields an evaluator that is ready, and ends its workers when the context ends.

    Raises:
        PluginError: an object cannot be sent to workers.
        ConfigError: the resources of the executor are not available.
        RunFailed: workers do not start; the message has the reason.
    """
    if executor.name == "serial":
        yield SerialEvaluator(scorer.score)
        return
    site = _site(executor, scorer)
    trains = scorer.training is not None
    attempts, timeout = executor.attempts, executor.timeout
    with Pool(
        site, attempts=attempts, timeout=timeout, on_event=on_event, trains=trains, own=computing(scorer)
    ) as pool:
        try:
            pool.wait_ready()
        except RunFailed as error:
            error.add_note("Code that the job names must be importable in workers; on a cluster, by run.runtime_env.")
            raise
        yield pool


def workers_here(executor: Executor) -> int:
    """The number of worker processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(64, 4 * cores)
    if executor.workers is not None and executor.workers > most:
        raise ConfigError(
            f"run.workers: expected at most {most} processes on this machine, which has {cores} processors, got "
            f"{executor.workers}. Leave it out to have as many as there is room for, or use executor: ray."
        )
    return executor.workers or max(1, int(cores / executor.cpus))


def _site(executor: Executor, scorer: Scorer) -> Site:
    if executor.name == "processes":
        from autoprune.run.executors.processes import Processes

        return Processes(scorer, count=workers_here(executor), cpus=executor.cpus, memory=executor.memory_bytes)
    from autoprune.run.executors.ray_actors import RayActors

    return RayActors(scorer, executor)
