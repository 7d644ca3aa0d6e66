"""Recovers a member of a front: trains it with the dense network, keeps the best one, and measures and writes it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
from torch import nn

from autoprune.data import Data
from autoprune.errors import AutopruneError, ConfigError, JournalLocked, RunFailed
from autoprune.prune.modules.borrowed import seeded
from autoprune.run.records.documents import write_checked
from autoprune.run.recovery.checkpoints import Checkpoints
from autoprune.run.recovery.written import NETWORK, RESULT
from autoprune.run.results.member import Member
from autoprune.run.results.members import Built, rebuild_member, remeasured, write_member
from autoprune.run.session.job import Progress
from autoprune.run.session.session import Session
from autoprune.train.examples import TrainingSet
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.outcome import Judged, Outcome
from autoprune.train.recovery.own import train_by_own
from autoprune.train.recovery.processes import Processes

_LOCK = ".lock"


def recover_member(
    session: Session,
    member: Member,
    options: Recovery,
    name: str,
    folder: Path | None,
    processes: Processes,
) -> Built:
    """Trains the network of a member and returns the best one with its member, whose `recovered` says how.

    Args:
        session: the session of the run.
        member: the member.
        options: the options of the training.
        name: the name of the recovery.
        folder: where checkpoints, the network and its row are written; None writes nothing.
        processes: those that train the network together; the first one writes.

    Raises:
        ConfigError: the data have no examples to train on, or the training was started with other options.
        JournalLocked: another process recovers this network.
        RunFailed: the network cannot be trained.
    """
    examples = training_examples(session.data, options)
    identity = {"candidate": member.candidate, "options": options.to_json(), "examples": examples.sha256}
    written = folder if processes.is_first else None
    with _locked(written):
        built = rebuild_member(session, member)
        checkpoints = Checkpoints(folder, identity, processes.is_first)
        outcome = _trained(session, built, options, examples, checkpoints, processes)
        facts = {**identity, "name": name, **_facts(outcome)}
        found = replace(remeasured(session, built.member, outcome.network), recovered=facts)
        recovered = Built(outcome.network, found)
        if written is not None:
            _write(session, recovered, written)
            Checkpoints(written, identity).remove()
    return recovered


def training_examples(data: Data, options: Recovery) -> TrainingSet:
    """The examples of a recovery: the train set, or, for a loss without labels, the calibration examples if there is
    none.

    Raises:
        ConfigError: the loss needs labels, and there is no train set.
    """
    if data.train is not None:
        with seeded(0):  # so that a loader which draws from the global generators yields the same examples every time
            batches, sha256 = data.training(options.steps)
        return TrainingSet.of(batches, sha256, options.batch_size, options.seed)
    if options.labelled:
        raise ConfigError(
            f"recovery: expected data with a train set for the loss {options.loss}, which needs labels, got none. Give "
            "the data one, Data.from_arrays(..., train=(x, y)), or take kl or mimic, which train on the calibration "
            "examples then."
        )
    sha256 = data.description["sets"]["calibrate"]["sha256"]
    return TrainingSet.of(data.calibrate, sha256, options.batch_size, options.seed)


def judged(session: Session, network: nn.Module) -> Judged:
    """Measures a network on the selection set, by the objectives of the job and then by those of the search."""
    values = session.selected(network)
    objectives = [o for o in (*session.job.objectives, *session.objectives) if o.name in values]
    return Judged(tuple(o.loss(values[o.name]) for o in objectives), values)


def _trained(
    session: Session,
    built: Built,
    options: Recovery,
    examples: TrainingSet,
    checkpoints: Checkpoints,
    processes: Processes,
) -> Outcome:
    subnet = session.bank.subnet(built.member.counts)
    kept, sparse = subnet.indices, subnet.sparse

    def after(loop: Recovering) -> None:
        checkpoints.keep(loop)
        session.progress(Progress("recovery", loop.done, loop.steps, loop.summary))

    def judge(network: nn.Module) -> Judged:
        return judged(session, network)

    try:
        if callable(options.train):
            return train_by_own(options.train, built.network, session.model, options, examples, sparse, judge)
        loop = Recovering(built.network, session.model, options, examples, kept, sparse, processes)
        checkpoints.load_into(loop)
        return loop.run(judge, after)
    except (AutopruneError, OSError):
        raise
    except Exception as error:  # a user's network, loss or augmentation may raise anything in train mode
        raise RunFailed(
            f"network {built.member.candidate} cannot be trained: {type(error).__name__}: {error}"
        ) from error


def _facts(outcome: Outcome) -> dict[str, Any]:
    best = outcome.best.step if outcome.best else outcome.steps
    history = [point.to_json() for point in outcome.history]
    return {"steps": outcome.steps, "best_step": best, "remark": outcome.remark, "history": history}


def _write(session: Session, built: Built, folder: Path) -> None:
    """Writes the network and then its row, after which the recovery is complete."""
    shutil.rmtree(folder / NETWORK, ignore_errors=True)  # of a process that was killed before it wrote the row
    write_member(session, built, folder / NETWORK)
    write_checked(folder / RESULT, built.member.to_json())


@contextlib.contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Keeps other processes out of the folder."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise JournalLocked(
            f"expected to be alone in {folder}, another process recovers this network. Wait for it, or give this "
            "recovery another name (--name)."
        ) from None
    try:
        yield
    finally:
        lock.release()
