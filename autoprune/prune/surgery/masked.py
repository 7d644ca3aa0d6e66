"""The masked original: a network of full size in which no sum over positions includes the removed ones.

The dense network runs with its own weights. Every operator that contracts an axis gets zeros at removed positions;
every one that reduces or normalises over an axis gets the kept positions only. So it is a reference also behind a
normalisation, where removing a position differs from setting it to zero. An addition gets zeros in place of a removed
branch, which itself runs in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from autoprune.errors import UnsupportedModel
from autoprune.prune.passes.site import CallSite
from autoprune.prune.passes.watch import Execute, Route
from autoprune.prune.structure.structure import Addition, Read, Structure
from autoprune.prune.surgery.surgery import Positions

Stays = dict[tuple[str, int], torch.Tensor]  # argument and dimension -> (n,) whether each position stays
SiteFinding = TypeVar("SiteFinding", Read, Addition)


class _BySite(Generic[SiteFinding]):
    """The findings at each site of a pass, applied to every visit if all traced visits agree.

    So a loop may run another number of times, and a data-dependent module may run or not.
    """

    def __init__(self, found: Sequence[SiteFinding]) -> None:
        self.visits = {each.site: each.visits for each in found}
        self._by_visit: dict[CallSite, dict[int, list[SiteFinding]]] = {}
        for each in found:
            self._by_visit.setdefault(each.site, {}).setdefault(each.visit, []).append(each)
        self.differing = [site for site in self._by_visit if not self._agree(site)]

    def at(self, site: CallSite, visit: int) -> Sequence[SiteFinding]:
        visits = self._by_visit.get(site, {})
        return visits.get(visit, []) if site in self.differing else next(iter(visits.values()), [])

    def _agree(self, site: CallSite) -> bool:
        visits = [[replace(each, visit=0) for each in found] for found in self._by_visit[site].values()]
        return len(visits) == self.visits[site] and all(found == visits[0] for found in visits)


class Masked(Route):
    """Runs the dense network as if some positions did not exist, in one of the traced passes."""

    def __init__(self, structure: Structure, positions: Positions, run: int = 0) -> None:
        super().__init__()
        self.reads = _BySite([read for read in structure.reads if read.run == run])
        removed = [b for name, b in structure.branches.items() if name in positions and not len(positions[name])]
        self.gone = _BySite([addition for branch in removed for addition in branch.additions if addition.run == run])
        self.removed = {
            unit.name: np.setdiff1d(np.arange(unit.width), positions[unit.name])
            for unit in structure.units
            if unit.name in positions
        }

    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        site = self.visit(name, arguments)
        stays: Stays = {}
        for addition in self.gone.at(site, self.visits[site]):
            argument = addition.argument
            in_place = argument == "self" and name.endswith("_")  # it writes to its argument
            operand = arguments[argument]
            arguments[argument] = operand.zero_() if in_place else torch.zeros_like(operand)
        for read in self.reads.at(site, self.visits[site]):
            if len(gone := self._removed(read)):
                mask = torch.ones(arguments[read.argument].shape[read.dim], dtype=torch.bool)
                mask[torch.from_numpy(gone)] = False
                stays[read.argument, read.dim] = mask.to(arguments[read.argument].device)
        compute = MASKED_OPERATORS.get(name, _zeroed)
        return self.noted(name, compute(arguments, stays, execute) if stays else execute(arguments))

    def check_complete(self) -> None:
        """Raises UnsupportedModel if a site whose visits differ was visited another number of times than in a trace."""
        for site in (*self.reads.differing, *self.gone.differing):
            if self.visits[site] != (traced := self.reads.visits.get(site) or self.gone.visits[site]):
                raise UnsupportedModel(
                    f"expected the run to come {traced} times to operator {site.operator} in "
                    f"{site.module or 'the top module'!r} at {site.line or 'a line of torch'}, where each time other "
                    f"positions are read, as when it was traced; it came {self.visits[site]} times: what the data "
                    "decide, such as an exit or a number of steps, falls differently when positions are removed"
                )

    def _removed(self, read: Read) -> np.ndarray:
        found = [span.indices(self.removed[unit]).ravel() for unit, span in read.units if unit in self.removed]
        return np.unique(np.concatenate(found)) if found else np.array([], dtype=np.int64)


def _zeroed(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    """Runs a contraction with zeros at removed positions."""
    return execute(_with_zeros(arguments, stays))


def _with_zeros(arguments: Mapping[str, Any], stays: Stays) -> dict[str, Any]:
    changed = dict(arguments)
    for (name, dim), mask in stays.items():
        changed[name] = changed[name].index_fill(dim, (~mask).nonzero().squeeze(1), 0)
    return changed


def _selected(arguments: Mapping[str, Any], stays: Stays) -> dict[str, Any]:
    changed = dict(arguments)
    for (name, dim), mask in stays.items():
        changed[name] = _take(changed[name], dim, mask)
    return changed


def _take(tensor: torch.Tensor, dim: int, mask: torch.Tensor) -> torch.Tensor:
    return tensor.index_select(dim, mask.nonzero().squeeze(1))


def _put_back(output: torch.Tensor, dense: torch.Tensor, stays: Stays) -> torch.Tensor:
    """The output at the kept positions, in the layout of the dense one, and zero elsewhere."""
    places = [torch.arange(n, device=output.device) for n in dense.shape]
    for (_, dim), mask in stays.items():
        places[dim] = mask.nonzero().squeeze(1)
    full = torch.zeros_like(dense)
    full[torch.meshgrid(*places, indexing="ij")] = output
    return full


def _reduced(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    return execute(_selected(arguments, stays))


def _normalised(arguments: dict[str, Any], changed: Mapping[str, Any], stays: Stays, execute: Execute) -> Any:
    """The output, or the first of several, of the changed arguments, in the layout of the original one."""
    dense, output = execute(arguments), execute(changed)
    if isinstance(dense, tuple):
        return (_put_back(output[0], dense[0], stays), *output[1:])
    return _put_back(output, dense, stays)


def _along(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    return _normalised(arguments, _selected(arguments, stays), stays, execute)


def _layer_norm(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    first = arguments["input"].dim() - len(arguments["normalized_shape"])
    beside = {
        (name, dim - first): mask
        for (_, dim), mask in stays.items()
        for name in ("weight", "bias")
        if arguments.get(name) is not None
    }
    changed = _selected(arguments, {**stays, **beside})
    changed["normalized_shape"] = list(changed["input"].shape[first:])
    return _normalised(arguments, changed, stays, execute)


def _group_norm(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    (mask,) = stays.values()
    beside = {(name, 0): mask for name in ("weight", "bias") if arguments.get(name) is not None}
    changed = _selected(arguments, {**stays, **beside})
    changed["C"] = int(mask.sum())
    changed["group"] = int(mask.reshape(arguments["group"], -1).any(dim=1).sum())
    return _normalised(arguments, changed, stays, execute)


def _largest(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    values, places = execute(_selected(arguments, stays))
    (mask,) = stays.values()
    return values, mask.nonzero().squeeze(1)[places]


def _attention(arguments: dict[str, Any], stays: Stays, execute: Execute) -> Any:
    """Leaves out tokens, and puts zeros at removed head dimensions.

    With head dimensions left out, queries would be smaller than values: no fused kernel takes these, and the scores of
    all heads would be in memory at once.
    """
    rank = arguments["key"].dim()
    within = {(name, dim): mask for (name, dim), mask in stays.items() if dim == rank - 1}
    changed = _selected(arguments, {place: mask for place, mask in stays.items() if place not in within})
    mask, tokens = arguments.get("attn_mask"), stays.get(("key", rank - 2))
    if mask is not None and tokens is not None and mask.shape[-1] == len(tokens):
        changed["attn_mask"] = _take(mask, mask.dim() - 1, tokens)
    if within and changed.get("scale") is None:  # it follows from the number of head dimensions
        changed["scale"] = int(next(iter(within.values())).sum()) ** -0.5
    return execute(_with_zeros(changed, within))


MASKED_OPERATORS: dict[str, Callable[[dict[str, Any], Stays, Execute], Any]] = {
    "scaled_dot_product_attention": _attention,
    "native_group_norm": _group_norm,
    "topk": _largest,
    "_weight_norm_interface": _along,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), _along),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax"), _along),
    **dict.fromkeys(("mean", "sum", "prod", "amax", "amin", "var", "std", "var_mean", "std_mean"), _reduced),
    **dict.fromkeys(("linalg_vector_norm", "norm", "logsumexp", "any", "all", "nansum", "count_nonzero"), _reduced),
    **dict.fromkeys(("max", "min", "aminmax", "median", "nanmedian", "mode", "kthvalue", "argmax", "argmin"), _reduced),
    **dict.fromkeys(("cumprod", "logcumsumexp", "cummax", "cummin"), _along),
}
