"""Builds the networks of a front, in the session of the search that found them or in one that is opened again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from autoprune.api.progress import Relay
from autoprune.core.evaluation import Evaluation
from autoprune.errors import ConfigError, RunNotFound
from autoprune.pretrained.saving import without_saving
from autoprune.prune.modules.copies import copy_model
from autoprune.run import after, drive
from autoprune.run.auditing import audit_session
from autoprune.run.audits.request import AuditRequest
from autoprune.run.audits.results import GuideAudit
from autoprune.run.drive import RunResult
from autoprune.run.harming import Harms, harm_session
from autoprune.run.records.folder import RunFolder, check_new
from autoprune.run.recovering import recover_in, recovered_network
from autoprune.run.recovery.written import folder_name
from autoprune.run.results.exporter import Format, find_exporter
from autoprune.run.results.front_file import FrontFile
from autoprune.run.results.member import Member
from autoprune.run.results.members import Built, rebuild_member, write_member
from autoprune.run.results.solving import solve_within
from autoprune.run.session.job import Job
from autoprune.run.session.session import Session
from autoprune.train.recovery.options import Recovery


class OpenedRun:
    """A run with the job, model and data that its networks are built from, which are loaded when first needed.

    Args:
        path: the run folder; None if the search did not write one.
        job: makes the job of the run. It raises ConfigError, which says what to pass, if the folder lacks some code.
        relay: the receiver of progress.
        result: the result of a search that has just ended; None for a run that is opened again.
    """

    def __init__(
        self, path: Path | None, job: Callable[[], Job], relay: Relay, result: RunResult | None = None
    ) -> None:
        self.path = path
        self._job = job
        self.relay = relay
        self._result = result
        self._session = result.session if result else None
        self._networks: dict[str, nn.Module] = {}  # recovered in a run without a folder, by name

    def build(self, member: Member) -> nn.Module:
        """Builds the network of a member."""
        with self._opened() as session:
            return without_saving(self._built(session, member).network)

    def export(self, member: Member, directory: Path, format: Format) -> None:
        """Writes the network of a member into a new folder."""
        check_new(directory, "the export")
        with self._opened() as session:
            exporter = find_exporter(format)  # fails early, before the network is built
            write_member(session, self._built(session, member), directory.absolute(), exporter)

    def recover(self, member: Member, options: Recovery, name: str | None) -> Member:
        """Recovers the network of a member, see `run.recovering.recover`."""
        if not isinstance(options, Recovery):
            raise ConfigError(f"recover: expected a Recovery, got {options!r}. Write autoprune.Recovery(epochs=10).")
        folder = None if self.path is None else RunFolder.open(self.path)
        with self._opened() as session:
            built = recover_in(session, member, options, name, folder)
        if folder is None:
            self._networks[folder_name(member, name)] = built.network
        return replace(built.member, builder=self)

    def _built(self, session: Session, member: Member) -> Built:
        """The network of a member: a recovered one as it was kept, any other one built again."""
        if member.recovered is None:
            return rebuild_member(session, member)
        if self.path is not None:
            return Built(recovered_network(session, member, RunFolder.open(self.path)), member)
        return Built(copy_model(self._networks[member.recovered["name"]]), member)

    def solve(self, members: Sequence[Member], budget: str, out: Path | None) -> Member:
        """Finds the best network within a budget, see `run.after.solve`."""
        if out is not None:
            check_new(out, "the export")
            out = out.absolute()
        with self._opened() as session:
            return solve_within(session, members, self._evaluations(), budget, out)

    def audit(self, front: FrontFile, request: AuditRequest) -> GuideAudit:
        """Audits the guide, see `run.auditing.audit`."""
        folder = None if self.path is None else RunFolder.open(self.path)
        with self._opened() as session:
            return audit_session(session, front, self._evaluations(), request, folder)

    def harm(self, members: Sequence[Member]) -> Harms:
        """Compares members with the dense network in depth, see `run.harming.harm`."""
        folder = None if self.path is None else RunFolder.open(self.path)
        with self._opened() as session:
            return harm_session(session, members, folder)

    def resume(self) -> RunResult:
        """Continues the run."""
        if self.path is None:
            raise RunNotFound(
                "expected a run folder to resume, but this search did not write one. Search with out=DIR."
            )
        with self.relay.showing():
            return drive.resume(self._job(), self.path, self.relay)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Session]:
        """Yields the session, in a block that uses as many threads as the run did."""
        job = self._job()
        with self.relay.showing(), after.as_it_ran(job, self.path) as recorded:
            if self._session is None and self.path is not None:
                self._session = after.open_again(job, self.path, recorded, self.relay)
            assert self._session is not None
            yield self._session

    def _evaluations(self) -> Sequence[Evaluation]:
        if self._result is not None:
            return self._result.evaluations
        return () if self.path is None else after.read_evaluations(self.path)
