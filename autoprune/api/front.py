"""The front that a search in Python returns."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, overload

from autoprune.api.opened import OpenedRun
from autoprune.api.table import html_table, text_table
from autoprune.errors import ConfigError, RunNotFound
from autoprune.run.audits.request import ORDERS, AuditRequest
from autoprune.run.audits.results import GuideAudit
from autoprune.run.drive import RunResult
from autoprune.run.records.folder import RunFolder, as_path, write_text
from autoprune.run.recovery.written import read_recovered
from autoprune.run.report import write_report
from autoprune.run.results.front_file import FrontFile, LeftOut, read_front_file, to_csv
from autoprune.run.results.member import Member
from autoprune.run.results.members import front_file


class PrunedFront(Sequence[Member]):
    """The front of a run: a sequence of its members by rising cost, with the methods of the run.

    `autoprune.search` and `autoprune.open_run` return it. Reading it needs neither model nor data; building a member
    needs both.

    Example:
        >>> front = autoprune.search(model, data, out="run")
        >>> front.pick("macs<=0.5").report["accuracy"]
        >>> small = front.pick("macs<=0.5").build()
        >>> front.solve("macs=0.4").export("small")
        >>> pandas.DataFrame(front.rows)
    """

    def __init__(self, run: OpenedRun, result: RunResult | None = None) -> None:
        self._run = run
        self._result = result

    @functools.cached_property
    def _front(self) -> FrontFile:
        if self._result is not None:
            return front_file(self._result.session, self._result.members, self._result.left_out)
        return read_front_file(self._folder())

    @functools.cached_property
    def members(self) -> tuple[Member, ...]:
        """All members of the front, by rising cost.

        Raises:
            RunNotFound: the run has no front yet; `resume` finishes the run.
        """
        return tuple(replace(member, builder=self._run) for member in self._front.members)

    @overload
    def __getitem__(self, index: int) -> Member: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Member, ...]: ...

    def __getitem__(self, index: int | slice) -> Member | tuple[Member, ...]:
        return self.members[index]

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        if not self._is_finished():
            return f"PrunedFront of {self.path}: no front yet, the run is not finished; resume() finishes it"
        return text_table(self._front, self.path)

    def __reduce__(self) -> NoReturn:
        opened = (
            f"autoprune.open_run({str(self.path)!r})" if self.path else "autoprune.open_run(DIR), searched with out=DIR"
        )
        raise ConfigError(
            "expected a run folder in place of a front, which holds the model and the data and is not pickled or "
            f"copied. Pickle the path or the members, and open the front again with {opened}."
        )

    def _repr_html_(self) -> str:
        return html_table(self._front, self.path) if self._is_finished() else f"<p>{self!r}</p>"

    @property
    def path(self) -> Path | None:
        """The run folder; None if the search did not write one."""
        return self._run.path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of front.csv: for each member, a mapping from columns to values."""
        return [member.flat() for member in self.members]

    @property
    def recovered(self) -> tuple[Member, ...]:
        """The recovered networks in the run folder, by the names of their recoveries; none without a folder."""
        found = [] if self.path is None else read_recovered(self.path)
        return tuple(replace(member, builder=self._run) for member in found)

    @property
    def dense(self) -> Mapping[str, float]:
        """The costs of the dense network."""
        return self._front.dense

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The networks that are not in the front because they could not be built or measured, with the causes."""
        return self._front.left_out

    def pick(self, which: str) -> Member:
        """Picks a member by bounds, by its row number or by its name.

        Bounds on costs alone pick the best measured network, bounds on measurements alone the cheapest one by the
        first cost; bounds on both pick the best measured network. `accuracy` is measured on the report set and
        `select_accuracy` on the selection set; if a member is picked by the latter, its `accuracy` stays unbiased.
        `agreement` is the share of examples of the report set for which a network predicts the class that the dense
        network predicts; its bound is compared with the lower end of the 95 % interval.

        Args:
            which: bounds on costs ("macs<=0.5,params<=100000"; a value of at most 1 is a share of the dense network's
                cost), bounds on measurements ("accuracy>=0.97"), a row number counted from 1 ("#3"), or a candidate's
                name ("2-2-2-4").

        Returns:
            The member, which can be built and exported.

        Raises:
            ConfigError: the text names no network.
            InfeasibleBudget: no network is within the bounds; the message names the nearest one.
        """
        return self.members[self._front.pick(which).index]

    def solve(self, budget: str, out: str | Path | None = None) -> Member:
        """Finds the best network within a budget from the measurements of the run, without new probes.

        The members of the front, the best of the other evaluated networks, the plan for exactly this budget and the
        uniform network of equal cost are built and compared on the selection set. The best one is measured on the
        report set. The method needs the model and the data.

        Args:
            budget: an upper bound on a cost, such as "macs=0.4" (a share of the dense network's cost) or "params=1e5",
                or several bounds separated by commas.
            out: a new folder to export the network to.

        Returns:
            The network as a member, whose `solved` says what it is and why it is the best.

        Raises:
            ConfigError: `budget` is not a bound on costs, or the model and the data are not known.
            InfeasibleBudget: no network is within the budget.
        """
        if not isinstance(budget, str):
            raise ConfigError(f"expected a budget such as 'macs=0.4', got {budget!r}")
        members = self.members if self._is_finished() else ()
        found = self._run.solve(members, budget, None if out is None else as_path("out", out))
        return replace(found, builder=self._run)

    def audit(
        self,
        networks: int = 20,
        *,
        band: str | None = None,
        steps: int | None = None,
        epochs: int | None = None,
        seeds: int = 2,
        scratch: bool = False,
        orders: Sequence[str] = ORDERS,
        lr: float = 0.01,
        scratch_lr: float | None = None,
        loss: str = "cross_entropy",
        augment: str = "none",
    ) -> GuideAudit:
        """Trains networks of one budget, and shows which value before training foretells the best one.

        Half of the networks are the best that the search measured within the band, half are random ones; every fifth is
        repeated with its positions in other orders. Every value that networks may be compared by is measured before
        training on the selection set, and the trained networks on the report set. The method needs the model and data
        with a train set. In a run folder, it writes audit.json, audit.csv and the report, and goes on where an earlier
        call was stopped.

        Args:
            networks: the number of networks, without those in other orders.
            band: the budget, such as "macs=0.45..0.55" (up to 1 a share of dense); by default that of the middle member
                of the front and 5 % to each side.
            steps: the number of training steps.
            epochs: passes over the train set, in place of `steps`; one by default.
            seeds: how often each network is trained, with the examples in another order.
            scratch: whether the networks are also trained from new random weights, for as many steps and for as much
                compute as the dense network takes in as many steps.
            orders: criteria that order the positions of networks at the same widths.
            lr: the highest learning rate.
            scratch_lr: the highest learning rate from new random weights; `lr` by default.
            loss: "cross_entropy", "kl", "distillation" or "mimic", as in `Recovery`.
            augment: "none" or "flip_crop", as in `Recovery`.

        Returns:
            Kendall's tau of each value before training with each after it, with its interval and a verdict in words.

        Raises:
            ConfigError: an argument is out of bounds, the band has fewer than three networks, the data have no train
                set, or the model and the data are not known.
        """
        request = AuditRequest(
            networks, band, steps, epochs, seeds, scratch, tuple(orders), lr, scratch_lr, loss, augment
        )
        return self._run.audit(self._front, request)

    def harm(self, which: str | None = None) -> dict[str, dict[str, Any]]:
        """Compares networks with the dense one by class, by group and on corrupted inputs, on the report set.

        In a run folder, it also writes harm.json and the report. The method needs the model and the data.

        Args:
            which: picks one member, see `pick`; None takes all.

        Returns:
            For each network, by its name: its agreement with the dense network, recalls and flipped examples, as in
            `Member.harm` for all classes; the excessive losses of groups with their gradient norms and curvatures,
            accuracies on corrupted inputs, collapsed layers and PQ indices.

        Raises:
            ConfigError: the text names no network, or the model and the data are not known.
            UnsupportedModel: the networks do not return scores of classes.
        """
        return self._run.harm(self.members if which is None else [self.pick(which)])

    def resume(self) -> PrunedFront:
        """Continues the run from its journal.

        Returns:
            The front, the same as without the interruption.

        Raises:
            ConfigError: the model and the data are not known.
            JournalMismatch: the model, the data or the code of the job differ from those that the run started with.
            RunNotFound: the search did not write a run folder.
        """
        result = self._run.resume()
        return PrunedFront(OpenedRun(result.folder, lambda: result.session.job, self._run.relay, result), result)

    def to_csv(self, path: str | Path) -> None:
        """Writes the rows to a CSV file, in the format of front.csv in the run folder.

        Raises:
            ConfigError: no file can be written at the path.
        """
        file = as_path("path", path)
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise ConfigError(
                f"path: expected a file in a folder that exists, got {str(path)!r}. Make the folder first."
            )
        write_text(file, to_csv(self.members))

    def report(self) -> Path:
        """Writes report.html in the run folder again and returns its path.

        Raises:
            RunNotFound: the search did not write a run folder, or the run is not finished.
        """
        return write_report(self._folder().path)

    def _folder(self) -> RunFolder:
        if self.path is None:
            raise RunNotFound("expected a run folder, but this search did not write one. Search with out=DIR.")
        return RunFolder.open(self.path)

    def _is_finished(self) -> bool:
        return self._result is not None or self._folder().front_json.is_file()
