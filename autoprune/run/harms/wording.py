"""The harm of a network as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autoprune.core.statistics import kendall_tau

Harm = Mapping[str, Any]

SHOWN = 5  # number of classes, and of groups, that are printed
ALARMING = 0.05  # a drop of a recall above this is flagged, as in the report


def worded(name: str, harm: Harm) -> str:
    """The harm of one network as lines of text."""
    return "\n".join([f"network {name}", *(f"  {line}" for line in _lines(harm))])


def _lines(harm: Harm) -> Iterator[str]:
    yield f"agreement with the dense network  {_interval(harm, 'agreement')} on {harm['examples']:,} examples"
    if "recall_worst" in harm:
        yield f"least recall of a class           {harm['recall_worst']:.4f}, class {harm['recall_worst_class']}"
        drop = f"{_interval(harm, 'recall_drop')}, class {harm['recall_drop_class']}"
        flag = "; above 5 points" if harm["recall_drop"] > ALARMING else ""
        yield f"worst drop of a recall            {drop}{flag}"
        yield f"right before and wrong now        {harm['flipped']:.1%} of the examples, {_listed(harm['flips'])}"
    if "intensification" in harm:
        yield f"intensification of recalls        {_interval(harm, 'intensification')}"
    if "corrupted_accuracy" in harm:
        share = f", {harm['corrupted_relative']:.1%} of the dense network's" if "corrupted_relative" in harm else ""
        yield f"accuracy on corrupted inputs      {harm['corrupted_accuracy']:.4f}{share}"
    if "group_gap" in harm:
        yield f"gap of excessive losses           {harm['group_gap']:.4f} nats"
        yield from _losses(harm["losses"])
    yield f"least spread of a layer's outputs {harm['spread_least']:.0%} of the dense network's"
    for layer, ratio in harm["collapsed"].items():
        yield f"  collapsed: {layer}, {ratio:.0%}"
    if harm["pq_index"]:
        name, (dense, pruned) = max(harm["pq_index"].items(), key=lambda entry: entry[1][1])
        yield f"highest PQ index of a weight      {pruned:.3f}, {name}; {dense:.3f} in the dense network"
    yield from harm["notes"]


def _interval(harm: Harm, name: str) -> str:
    return f"{harm[name]:.4f} ({harm[name + '_low']:.3f} to {harm[name + '_high']:.3f})"


def _listed(flips: Sequence[int]) -> str:
    """The numbers of the first flipped examples, or that there are none."""
    return f"first {', '.join(map(str, flips[:SHOWN]))}" if flips else "none"


def _losses(losses: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """The groups that lose most, with what explains it."""
    yield "  group  examples  excessive loss  gradient norm  curvature  estimate without fit"
    for line in losses[:SHOWN]:
        terms = [line.get(name) for name in ("gradient_norm", "curvature", "estimate")]
        gradient, curvature, estimate = ("-" if term is None else f"{term:.3g}" for term in terms)
        head = f"  {line['group']:>5}  {line['examples']:>8}  {line['excess']:>14.4f}"
        yield f"{head}  {gradient:>13}  {curvature:>9}  {estimate:>20}"


def lottery(found: Mapping[str, tuple[float | None, Harm]]) -> str:
    """A sentence on whether the order of networks by accuracy is their order on corrupted inputs; empty for few.

    Args:
        found: the accuracy of each network, None if it was not measured, and its harm.
    """
    pairs = [
        (accuracy, harm["corrupted_accuracy"]) for accuracy, harm in found.values() if "corrupted_accuracy" in harm
    ]
    clean = [(accuracy, corrupted) for accuracy, corrupted in pairs if accuracy is not None]
    if len(clean) < 3:
        return ""
    tau = kendall_tau([x for x, _ in clean], [y for _, y in clean])
    return f"Kendall's tau of accuracy and corrupted accuracy over {len(clean)} networks: {tau:.2f}"
