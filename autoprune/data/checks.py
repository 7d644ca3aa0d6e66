"""Checks of the sets of batches: not empty, finite, of one shape, labelled, and disjoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from autoprune.errors import DataError
from autoprune.measure.batch import Batch

Sets = Mapping[str, tuple[Batch, ...]]

SHARED_AT_MOST = 0.01  # share of the smaller set; published sets hold a few duplicates, a wrong split many

_INPUT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
_HINTS = {
    torch.float64: "Convert with .astype(numpy.float32) or .float().",
    torch.uint8: "Raw images must be normalised the way the network was trained, e.g. (x / 255 - mean) / std as "
    "float32; token ids must be int64.",
}


def describe(sets: Sets) -> dict[str, Any]:
    """Checks the sets and returns a record of them: sizes, content hashes, and counts of examples that two sets share.

    The sha256 of a set covers its examples in their order, types and targets, but not their division into batches.
    "train" may hold the examples of "calibrate"; no other two sets may share more than 1 % of the smaller one's
    examples.

    Raises:
        DataError: a set is unusable; the message describes the first problem.
    """
    for name, batches in sets.items():
        _check_set(name, batches)
    _check_same_layout(sets)
    digests = {name: [d for batch in batches for d in _digests(batch)] for name, batches in sets.items()}
    return {
        "sets": {
            name: {"examples": len(digests[name]), "batches": len(batches), "sha256": _sha256(digests[name], batches)}
            for name, batches in sets.items()
        },
        "shared": _shared(digests),
    }


def _check_set(name: str, batches: Sequence[Batch]) -> None:
    if not batches:
        raise DataError(f"{name}: expected at least one batch of examples, got none")
    seen = 0
    for index, batch in enumerate(batches):
        where = f"{name}, batch {index}"
        if not isinstance(batch, Batch):
            raise DataError(f"{where}: expected an autoprune Batch, got {type(batch).__name__}. See Data.from_loaders.")
        _check_batch(batch, where, labelled=name != "calibrate")
        _check_finite(name, batch, seen)
        seen += len(batch.inputs[0])


def _check_batch(batch: Batch, where: str, *, labelled: bool) -> None:
    if not batch.inputs or any(x.ndim == 0 or x.numel() == 0 for x in batch.inputs):
        shapes = [tuple(x.shape) for x in batch.inputs]
        raise DataError(f"{where}: expected inputs with at least one example and one value each, got shapes {shapes}")
    for index, x in enumerate(batch.inputs):
        if x.dtype not in _INPUT_TYPES:
            hint = _HINTS.get(x.dtype, "Convert to one of them.")
            expected = ", ".join(str(t).removeprefix("torch.") for t in _INPUT_TYPES)
            raise DataError(f"{where}, input {index}: expected {expected}, got {x.dtype}. {hint}")
    if labelled and batch.target is None:
        raise DataError(f"{where}: expected a target for every example, got none. Only calibrate is unlabelled.")
    targets = () if batch.target is None else (batch.target,)
    lengths = [len(x) for x in (*batch.inputs, *targets)]
    if len(set(lengths)) != 1:
        raise DataError(f"{where}: expected inputs and target of one length, got lengths {lengths}")
    if batch.group is not None and len(batch.group) != lengths[0]:
        raise DataError(
            f"{where}: expected a group for each of the {lengths[0]} examples, got {len(batch.group)} groups"
        )


def _check_finite(name: str, batch: Batch, seen: int) -> None:
    """Raises DataError for NaN or infinity in a batch; `seen` examples of the set came before it."""
    parts = [(f"input {i}", x) for i, x in enumerate(batch.inputs)]
    parts += [] if batch.target is None else [("target", batch.target)]
    for part, x in parts:
        if bool(torch.isfinite(x).all()):
            continue
        bad = (~torch.isfinite(x)).reshape(len(x), -1).any(dim=1).nonzero()[:, 0]
        raise DataError(
            f"{name}, {part}: expected finite values, got NaN or infinity in {len(bad)} of the {len(x)} examples "
            f"{seen} to {seen + len(x) - 1}, first in example {seen + int(bad[0])}. Repair or drop them."
        )


def _check_same_layout(sets: Sets) -> None:
    """Raises DataError unless all batches have the same number of inputs, example shapes and types.

    Sequences of tokens, (b, tokens) integers each, may be longer in one batch than in another.
    """
    first = next(iter(sets.values()))[0]
    for name, batches in sets.items():
        for index, batch in enumerate(batches):
            if _kinds(batch) != _kinds(first):
                raise DataError(
                    f"{name}, batch {index}: expected examples like those of the first calibrate batch, "
                    f"{_layout(first)}, got {_layout(batch)}. All sets must feed the same network."
                )


def _kinds(batch: Batch) -> list[tuple[object, ...]]:
    """The type of each input and the shape of its examples, without the lengths of sequences of tokens."""
    tokens = all(x.dtype in (torch.int64, torch.int32) and x.dim() == 2 for x in batch.inputs)
    return [(x.dtype, None if tokens else x.shape[1:]) for x in batch.inputs]


def _layout(batch: Batch) -> str:
    return ", ".join(f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape[1:])}" for x in batch.inputs)


def _digests(batch: Batch) -> list[bytes]:
    """One sha256 per example, over the bytes of its inputs."""
    columns = [_rows(x) for x in batch.inputs]
    return [hashlib.sha256(b"".join(row.tobytes() for row in rows)).digest() for rows in zip(*columns, strict=True)]


def _rows(x: torch.Tensor) -> Any:
    """(b, k) uint8 view of the bytes of each row; the cast is torch's, since numpy has no bfloat16."""
    return x.detach().cpu().reshape(len(x), -1).contiguous().view(torch.uint8).numpy()


def _sha256(digests: Sequence[bytes], batches: Sequence[Batch]) -> str:
    content = hashlib.sha256(_layout(batches[0]).encode())
    content.update(b"".join(digests))
    for batch in batches:
        for x in (batch.target, batch.group):
            if x is not None:
                content.update(_rows(x).tobytes())
    return content.hexdigest()


def _shared(digests: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
    """The number of distinct examples that two sets share, for the pairs that share any."""
    unique = {name: set(values) for name, values in digests.items()}
    found: dict[str, int] = {}
    for left, right in combinations(unique, 2):
        if {left, right} == {"calibrate", "train"}:
            continue
        count = len(unique[left] & unique[right])
        smaller = min(len(unique[left]), len(unique[right]))
        if count > SHARED_AT_MOST * smaller:
            raise DataError(
                f"expected {left} and {right} to be disjoint, got {count} examples in both "
                f"({count / smaller:.1%} of the smaller set; up to {SHARED_AT_MOST:.0%} is tolerated). "
                "Split the examples again: scores on shared examples are too good."
            )
        if count:
            found[f"{left}/{right}"] = count
    return found
