"""Finds the member of a front that a text names: by bounds on values, a row number, or a candidate's name."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.errors import ConfigError, InfeasibleBudget, did_you_mean

RATIO = "_ratio"  # suffix of a cost given as a share of the dense network's
ROW_NUMBER = re.compile(r"#?(\d{1,18})")
BOUNDED = re.compile(r"[<>=]")


@dataclass(frozen=True)
class Picked:
    """A member of a front: its index, and a sentence that says why it was picked."""

    index: int
    why: str


@dataclass(frozen=True)
class Choice:
    """The members of a front to pick from, in the order in which their rows are printed.

    Attributes:
        members: the evaluations.
        objectives: the front's objectives.
        dense: the dense costs by name: they say which values are costs, and what a bound of at most 1 is a share of.
        names: the candidates' names; empty if they have none.
        cautious: the names of values that are the lower ends of 95 % confidence intervals, which sentences say.
    """

    members: Sequence[Evaluation]
    objectives: Sequence[Objective]
    dense: Mapping[str, float]
    names: Sequence[str] = ()
    cautious: Collection[str] = ()

    def pick(self, text: str) -> Picked:
        """The member that `text` names.

        Args:
            text: one bound or several with commas ("macs<=0.5", "accuracy>=0.97,params<=100000"), the number of a row
                counted from 1 ("3" or "#3"), or the name of a candidate ("2-2-2-4"). Bounds on costs alone pick the
                member with the best measurement, bounds on measurements alone the cheapest member, by the first cost.
                With bounds on both, the best measurement counts.

        Raises:
            ConfigError: the text is none of these, or names a row, a candidate or a value that does not exist.
            InfeasibleBudget: no member is within all bounds; the message names the nearest one.
        """
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"expected {_FORMS}, got {text!r}")
        text = text.strip()
        if BOUNDED.search(text):
            return self._within(text, [self._bound(part) for part in text.split(",")])
        return self._named(text)

    def _named(self, text: str) -> Picked:
        """The member with this row number or candidate's name; a name may be a number, too."""
        number = ROW_NUMBER.fullmatch(text)
        rows = [int(number[1]) - 1] if number and 1 <= int(number[1]) <= len(self.members) else []
        named = [index for index, name in enumerate(self.names) if name == text]
        if len({*rows, *named}) > 1:
            raise ConfigError(
                f"expected one network, got {text!r}, which is both a row number and the name of the candidate in "
                f"row {named[0] + 1}. Write '#{text}' or '#{named[0] + 1}'."
            )
        if named:
            return Picked(named[0], "named by its candidate")
        if rows:
            return Picked(rows[0], "named by its row")
        if number:
            raise ConfigError(f"expected a row from 1 to {len(self.members)}, got {text!r}")
        raise ConfigError(f"expected {_FORMS}, got {text!r}{did_you_mean(text, self.names)}")

    def _bound(self, part: str) -> Bound:
        bound = Bound.parse(part).absolute(self.dense)
        known = sorted({name for member in self.members for name in member.values})
        if known and bound.name not in known:
            raise ConfigError(
                f"expected a bound on one of {known}, got {part.strip()!r}{did_you_mean(bound.name, known)}"
            )
        if not self._is_cost(bound.name) and not re.search("[<>]", part):
            raise ConfigError(
                f"expected '{bound.name}>={bound.value:g}' or '{bound.name}<={bound.value:g}', got {part.strip()!r}: "
                "'=' is a budget, and only a cost has one"
            )
        return bound

    def _within(self, text: str, bounds: Sequence[Bound]) -> Picked:
        inside = [i for i in range(len(self.members)) if all(self._admits(bound, i) for bound in bounds)]
        if not inside:
            raise InfeasibleBudget(self._why_empty(text, bounds))
        order = self._order({bound.name for bound in bounds})
        index = min(inside, key=lambda i: [o.loss(self._value(i, o.name)) for o in order])
        first = order[0].name
        how = f"cheapest by {first}" if self._is_cost(first) else f"best by {first}"
        return Picked(index, f"{how} among {len(inside)} with {' and '.join(map(self._said, bounds))}")

    def _order(self, bounded: set[str]) -> list[Objective]:
        """The objectives that rank the members within the bounds, most important first."""
        measured = [o for o in self.objectives if not self._is_cost(o.name)]
        costs = [o for o in self.objectives if self._is_cost(o.name)]
        if not any(map(self._is_cost, bounded)):
            return [*(costs or [Objective(name, "min") for name in self.dense][:1]), *measured] or [*self.objectives]
        free = [o for o in costs if o.name not in bounded]
        return [*measured, *free, *(o for o in costs if o.name in bounded)]

    def _is_cost(self, name: str) -> bool:
        return name in self.dense or name.removesuffix(RATIO) in self.dense

    def _value(self, index: int, name: str) -> float:
        """A member's value; NaN, which no bound admits, if it has none."""
        return self.members[index].values.get(name, math.nan)

    def _admits(self, bound: Bound, index: int) -> bool:
        return bound.admits(self._value(index, bound.name))

    def _said(self, bound: Bound) -> str:
        share = f" ({bound.value / self.dense[bound.name]:.4g} of dense)" if self.dense.get(bound.name) else ""
        end = " (by the lower end of its 95 % interval)" if bound.name in self.cautious else ""
        return f"{bound.name} {bound.sense} {bound.value:g}{share}{end}"

    def _why_empty(self, text: str, bounds: Sequence[Bound]) -> str:
        if not self.members:
            return f"no member of the front satisfies {text!r}: the front is empty, no evaluation succeeded"
        nearest = min(range(len(self.members)), key=lambda i: sum(self._distance(bound, i) for bound in bounds))
        name = f", candidate {self.names[nearest]}," if self.names else ""
        values = " and ".join(self._figure(bound.name, nearest) for bound in bounds)
        ranges = ", ".join(self._range(bound.name) for bound in bounds)
        return (
            f"no member of the front satisfies {text!r}; the nearest is row {nearest + 1}{name} with {values}. "
            f"The front has {len(self.members)} members with {ranges}"
        )

    def _figure(self, name: str, index: int) -> str:
        value = self._value(index, name)
        share = f" ({value / self.dense[name]:.4f} of dense)" if self.dense.get(name) else ""
        end = " at the lower end of its 95 % interval" if name in self.cautious else ""
        return f"{name} {value:g}{share}{end}"

    def _range(self, name: str) -> str:
        values = [member.values[name] for member in self.members if name in member.values]
        least = min(values)
        share = f" ({least / self.dense[name]:.4f} of dense)" if self.dense.get(name) else ""
        return f"{name} from {least:g}{share} to {max(values):g}"

    def _distance(self, bound: Bound, index: int) -> float:
        """The amount by which a member misses a bound, as a share of that value's range over the front."""
        value = self._value(index, bound.name)
        if math.isnan(value):
            return math.inf
        values = [member.values[bound.name] for member in self.members if bound.name in member.values]
        missed = value - bound.value if bound.sense == "<=" else bound.value - value
        return max(missed, 0.0) / ((max(values) - min(values)) or 1.0)


_FORMS = "bounds such as 'macs<=0.5' or 'accuracy>=0.97', a row number such as '#3', or the name of a candidate"
