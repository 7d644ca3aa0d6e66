"""Collects the second moments of every consumer's inputs, for criteria and compensation, in one pass over examples."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.prune.devices.halving import halving
from autoprune.prune.modules.borrowed import without_tf32
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import Consumer, MomentsForm, find_consumers
from autoprune.prune.moments.design import Design
from autoprune.prune.moments.held_out import choose_ridge
from autoprune.prune.moments.sums import Sums
from autoprune.prune.moments.watch import Diverged, Watch
from autoprune.prune.passes.containers import copied
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild


@dataclass(frozen=True)
class Moments:
    """Second moments of the rows that a consumer's weight multiplies, from `rows` rows.

    Attributes:
        design: the design of the rows.
        form: "columns" or "channels".
        stored: (g, d, d), for each group the mean of x x^T, over d = k columns, or in the form "channels" over the d =
            k / kernel inputs, summed over kernel positions. If they are kept for blocks of inputs only, (g * b, d / b,
            d / b). float64, and float32 for wide consumers. Consumers that read the same tensor share it.
        mean: (g, k) mean of the rows, float64.
        centred: whether `stored` is about the mean, which it is if a constant may be fitted beside the weights.
        rows: the number of rows.
        constants: for every bias that absorbs such a constant, the (g, k) mean of the rows of the modules that add it;
            a batch norm that will be re-estimated needs none.
        seen: the number of rows from which `rows` were sampled.
        ridge: where there are few rows for the columns, the ridge that is best on a fifth of the examples that is held
            out, as a share of the mean diagonal; None for the usual one.
    """

    design: Design
    form: MomentsForm
    stored: torch.Tensor
    mean: torch.Tensor
    centred: bool
    rows: int
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)
    seen: int = 0
    ridge: float | None = None

    @property
    def gram(self) -> torch.Tensor:
        """(g, d, d) second moments; 0 between blocks."""
        if self.blocks == 1:
            return self.stored
        groups, size = len(self.mean), self.stored.shape[1]
        whole = self.stored.new_zeros(groups, self.blocks, size, self.blocks, size)
        own = self.stored.reshape(groups, self.blocks, size, size).permute(0, 2, 3, 1)
        whole.diagonal(dim1=1, dim2=3).copy_(own)
        return whole.reshape(groups, self.blocks * size, self.blocks * size)

    @property
    def squares(self) -> torch.Tensor:
        """(g, d) diagonal of the second moments."""
        return self.stored.diagonal(dim1=1, dim2=2).reshape(len(self.mean), -1)

    @property
    def blocks(self) -> int:
        """The number of blocks of a group's inputs."""
        return len(self.stored) // len(self.mean)

    @property
    def block(self) -> int:
        """The number of rows of the second moments per input."""
        return self.design.kernel if self.form == "columns" else 1


def collect_moments(
    model: nn.Module,
    structure: Structure,
    weights: Sequence[str],
    batches: Iterable[tuple[torch.Tensor, ...]],
    limit: int | None = None,
) -> tuple[dict[str, Moments], dict[str, str]]:
    """Collects the second moments of weights' inputs in one pass over the batches.

    A weight that several modules use gets the moments of all of them together. Weights that read the same tensors in
    the same way, such as those of queries, keys and values, share their sums. Where a device has too little memory for
    the batches, they are halved, and the pass starts again; where rows are sampled, other ones are drawn then.

    Args:
        model: the network.
        structure: its structure.
        weights: names of consumer weights.
        batches: positional arguments of the model, one batch each.
        limit: see `find_consumers`.

    Returns:
        Moments by weight name, and the reason for every weight without them.

    Raises:
        DataError: there are no batches.
        DeviceMemoryError: the device has too little memory for a pass of one example.
    """
    consumers, reasons = find_consumers(model, structure, weights, limit)
    batches = list(batches)
    if not sum(len(inputs[0]) for inputs in batches):
        raise DataError("expected at least one batch to collect statistics from, got none. Check `calibrate`.")
    sums = halving(functools.partial(_sums, model, structure, consumers), batches, stage="second moments")
    reasons |= {name: reason for name, parts in sums.items() if (reason := _unusable(parts.values()))}
    usable = {name: parts for name, parts in sums.items() if name not in reasons}
    return _finished(consumers, usable, named_tensors(model)), reasons


def _sums(
    model: nn.Module,
    structure: Structure,
    consumers: Mapping[str, Consumer],
    batches: Sequence[tuple[torch.Tensor, ...]],
) -> Mapping[str, Mapping[str, Sums]]:
    """The sums of each consumer, by the parameter that absorbs a constant."""
    apart: set[str] = set()
    while True:
        watch = Watch(consumers, apart, sum(len(inputs[0]) for inputs in batches))
        if _watched(rebuild(model, {}, {}, structure.adapted, share=True).eval(), watch, batches):
            return watch.sums
        apart.add(watch.diverged)  # in one more pass, it has its own sums


def _watched(network: nn.Module, watch: Watch, batches: Sequence[tuple[torch.Tensor, ...]]) -> bool:
    """Fills the sums in one pass; False if a weight must not share the sums of another."""
    watch.attach(network)
    try:
        with torch.no_grad(), without_tf32():
            for inputs in batches:
                watch.begin(len(inputs[0]))
                network(*copied(inputs))
                watch.end()
    except Diverged:
        return False
    return True


def _unusable(parts: Iterable[Sums]) -> str:
    """The reason why sums cannot be used; empty if they can."""
    parts = list(parts)
    refused = next((part.refused for part in parts if part.refused), "")
    if refused:
        return refused
    if not any(part.rows for part in parts):
        return "the forward uses it without calling its module"
    if not all(bool(torch.isfinite(part.second).all()) for part in parts):
        return "its inputs, or their squares, are not finite"
    return ""


def _finished(
    consumers: Mapping[str, Consumer], sums: Mapping[str, Mapping[str, Sums]], tensors: Mapping[str, torch.Tensor]
) -> dict[str, Moments]:
    """The moments of each weight; those of weights that share sums and are centred alike are the same tensor."""
    alike: dict[tuple[frozenset[int], bool], list[str]] = {}
    for name, parts in sums.items():
        called = frozenset(id(part) for part in parts.values() if part.rows)
        alike.setdefault((called, all(constant for constant, part in parts.items() if part.rows)), []).append(name)
    waiting = Counter(called for called, _ in alike)
    found = {}
    for (called, centred), names in alike.items():
        waiting[called] -= 1
        parts = {constant: part for constant, part in sums[names[0]].items() if part.rows}
        if waiting[called]:  # the sums are needed once more
            parts = copy.deepcopy(parts)
        held = next(iter(parts.values())).held_moments(centred) if len(parts) == 1 else None
        gram, mean, own = _merged(list(parts.values()), centred)
        rows, seen = (sum(getattr(part, kind) for part in parts.values()) for kind in ("rows", "seen"))
        for name in names:
            constants = [constant for constant, part in sums[name].items() if part.rows]
            absorbed = {c: m for c, m in zip(constants, own, strict=True) if centred and c in tensors}
            design = consumers[name].design
            ridge = None if held is None else _ridge(design, tensors[name], gram * rows, held)
            found[name] = Moments(design, consumers[name].form, gram, mean, centred, rows, absorbed, seen, ridge)
    return {name: found[name] for name in sums}


def _ridge(design: Design, weight: torch.Tensor, sums: torch.Tensor, held: torch.Tensor) -> float:
    """The ridge for a weight, from the (g, k, k) sums of products over all rows and over those that are held out."""
    flat = design.flat(weight.detach().cpu().double())
    return choose_ridge(flat, sums - held, held, design.kernel)


def _merged(parts: Sequence[Sums], centred: bool) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """The second moments and the mean of all callers together, and the mean of each. The sums are used up."""
    count = sum(part.rows for part in parts)
    shares = [part.rows / count for part in parts]
    means, seconds = zip(*(part.finish(centred) for part in parts), strict=True)
    gram = seconds[0] if len(parts) == 1 else sum(share * second for share, second in zip(shares, seconds, strict=True))
    gram = (gram + gram.transpose(1, 2)).div_(2)  # made exactly symmetric: products are symmetric up to rounding
    return gram, sum(share * mean for share, mean in zip(shares, means, strict=True)), list(means)
