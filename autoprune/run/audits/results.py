"""The result of an audit: its networks, the agreements, the differences from scratch, and their text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from autoprune.run.audits.agreement import Agreement, agreement, mean_interval, seed_noise

BUDGETS = {"scratch_e": "equal steps", "scratch_b": "equal compute"}
COLUMNS = ("before", "after", "tau", "low", "high", "p", "counterexamples", "same_widths", "verdict")

Signs = Mapping[str, float]  # 1 for a value of which lower is better, -1 otherwise


@dataclass(frozen=True)
class AuditedNetwork:
    """A network of an audit with its measurements.

    Attributes:
        candidate: its name, the kept counts joined by dashes.
        origin: searched, random, or order: the widths of another network with other positions.
        order: the criterion of its positions; empty for that of the search.
        share: its cost as a share of the dense network's.
        before: values before training, on the selection set.
        after: values after training, on the report set, one for each seed.
        scratch_e: the same from new random weights after as many steps.
        scratch_b: the same after as many more steps as the dense network has more MACs.
        cause: why it was left out; empty if it was not.
    """

    candidate: str
    origin: str
    order: str
    share: float
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scratch_e: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scratch_b: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cause: str = ""

    def mean(self, name: str) -> float:
        """The mean over seeds of a value after training."""
        return sum(self.after[name]) / len(self.after[name])


@dataclass(frozen=True)
class Inherited:
    """What a network's own weights are worth: the gain over the same network trained from new random weights.

    Attributes:
        budget: equal steps, or equal compute (steps times the MACs of dense over those of the network).
        after: the name of the value.
        gain: the mean over networks by which the value is better with the own weights.
        low: the lower end of its 95 % bootstrap interval over networks.
        high: the upper end.
    """

    budget: str
    after: str
    gain: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        if self.low > 0:
            what = "are worth more than new random ones"
        elif self.high < 0:
            what = "are worth less than new random ones"
        else:
            what = "make no difference that these networks show"
        return (
            f"Own weights {what}, with {self.budget}: {self.after} better by {self.gain:.4f} "
            f"({self.low:.4f} to {self.high:.4f})."
        )


@dataclass(frozen=True)
class GuideAudit:
    """The result of an audit.

    Attributes:
        band: the budget band in words.
        guide: the value that the search compared networks by.
        training: the options of training, by name.
        networks: the networks, those left out included.
        agreements: for each value before training its agreement with each value after it.
        inherited: the differences from training from scratch; none without `scratch`.
    """

    band: str
    guide: str
    training: Mapping[str, Any]
    networks: tuple[AuditedNetwork, ...]
    agreements: tuple[Agreement, ...]
    inherited: tuple[Inherited, ...] = ()

    @property
    def compared(self) -> list[AuditedNetwork]:
        """The networks whose order is compared: those with the search's order of positions."""
        return [network for network in self.networks if not (network.cause or network.order)]

    @property
    def verdict(self) -> str:
        """What the audit says of the guide, in a sentence."""
        found = next((a for a in self.agreements if a.before == self.guide), None)
        if found is None or found.tau is None:
            return f"The audit says nothing of the guide {self.guide}."
        said = {
            "strong": "it orders networks of this budget much as they are ordered after training",
            "some": "it tells part of the order of networks of this budget after training",
            "none": "it does not tell which network of this budget is better after training, so do not trust it to "
            "choose a network that is trained afterwards",
        }[found.verdict]
        ends = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
        return f"The guide {self.guide} has tau {found.tau:.2f}{ends} with {found.after} after training: {said}."

    @property
    def sentences(self) -> list[str]:
        """The verdict, the differences from scratch and the networks left out."""
        left_out = [f"Left out: {n.candidate} {n.order}: {n.cause}." for n in self.networks if n.cause]
        return [self.verdict, *(own.sentence for own in self.inherited), *left_out]

    @property
    def setting(self) -> str:
        """The networks and their training in a sentence."""
        origins = [network.origin for network in self.compared]
        counted = f"{origins.count('searched')} of the search and {origins.count('random')} random"
        others = len(self.networks) - len(origins) - sum(bool(n.cause) for n in self.networks)
        also = f", and {others} with other positions at the widths of some of them" if others else ""
        options = ", ".join(f"{name} {value}" for name, value in self.training.items())
        return f"{len(origins)} networks of {self.band} ({counted}){also}; {options}"

    def __repr__(self) -> str:
        lines = [[_shown(getattr(a, name)) for name in COLUMNS] for a in self.agreements]
        return "\n".join([f"{self.setting}.", *aligned([list(COLUMNS), *lines]), *self.sentences])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> GuideAudit:
        """Makes an audit from the result of `to_json`.

        Raises:
            LookupError, TypeError: the document has another form.
        """
        return GuideAudit(
            data["band"],
            data["guide"],
            data["training"],
            tuple(AuditedNetwork(**network) for network in data["networks"]),
            tuple(Agreement(**row) for row in data["agreements"]),
            tuple(Inherited(**row) for row in data["inherited"]),
        )

    def to_csv(self) -> str:
        """A line for each network, with its values before and the means over seeds of those after."""
        rows = [
            {
                **{name: getattr(n, name) for name in ("candidate", "origin", "order", "share", "cause")},
                **{f"before_{name}": value for name, value in n.before.items()},
                **_means("after_", n.after),
                **_means("scratch_e_", n.scratch_e),
                **_means("scratch_b_", n.scratch_b),
            }
            for n in self.networks
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def agreements_of(networks: Sequence[AuditedNetwork], signs: Signs) -> tuple[Agreement, ...]:
    """The agreement of every value before with every value after training.

    Args:
        networks: the networks with their measurements; those with other orders of positions are compared only with the
            networks of the same widths.
        signs: the signs of the values, by name.
    """
    compared = [network for network in networks if not network.order]
    widths = {network.candidate: network for network in compared}
    groups: dict[str, list[AuditedNetwork]] = {}
    for network in networks:
        if network.order and network.candidate in widths:
            groups.setdefault(network.candidate, [widths[network.candidate]]).append(network)

    def losses(before: str, after: str, among: Sequence[AuditedNetwork]) -> tuple[list[float], list[float]]:
        return [signs[before] * n.before[before] for n in among], [signs[after] * n.mean(after) for n in among]

    noises = {after: seed_noise([n.after[after] for n in compared]) for after in compared[0].after}
    return tuple(
        agreement(
            (before, after),
            losses(before, after, compared),
            noises[after],
            [losses(before, after, group) for group in groups.values()],
        )
        for after in compared[0].after
        for before in compared[0].before
        if {before, after} <= signs.keys()
    )


def inherited_of(networks: Sequence[AuditedNetwork], signs: Signs) -> tuple[Inherited, ...]:
    """The gains over the same networks trained from new random weights; none if none was."""
    found = []
    for budget, words in BUDGETS.items():
        trained = [network for network in networks if getattr(network, budget)]
        for after in (name for name in trained[0].after if name in signs) if trained else ():
            gains = [
                signs[after] * (sum(getattr(n, budget)[after]) / len(getattr(n, budget)[after]) - n.mean(after))
                for n in trained
            ]
            found.append(Inherited(words, after, *mean_interval(gains)))
    return tuple(found)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _means(prefix: str, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {prefix + name: sum(own) / len(own) for name, own in values.items()}


def _shown(value: str | float | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.3f}"
