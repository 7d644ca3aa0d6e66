"""Batches of dictionaries, as tokenizers and loaders of transformers make them, and their padding.

Padding must not count in statistics and fits. So the batches of the calibration set are cut to the tokens of their
sequences, which are grouped by length; the sets that are measured keep their padding, whose labels are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autoprune.data.convert import to_target, to_tensor
from autoprune.errors import DataError
from autoprune.measure.batch import Batch
from autoprune.measure.language import IGNORED
from autoprune.pretrained.networks import INPUTS

IDS, MASK, TYPES = INPUTS
LABELS = ("labels", "label")


def from_dict(item: Mapping[str, Any], where: str, *, labelled: bool) -> Batch:
    """The batch of a dictionary: `input_ids`, `attention_mask` and `token_type_ids` as inputs, `labels` as the target.

    The mask may be left out if nothing is padded. Without labels the target is the tokens themselves, as for a language
    model. Padding gets the label -100.

    Raises:
        DataError: there are no tokens, other keys, or tensors of other shapes.
    """
    known = [name for name in item if name in (*INPUTS, *LABELS)]
    if IDS not in item or len(known) < len(item):
        raise DataError(
            f"{where}: expected a dictionary with {', '.join(INPUTS)} and labels, of which {IDS} is required, got "
            f"{', '.join(map(str, item))}. Leave out the others, or yield tuples (x, ..., y) instead."
        )
    given = {name: to_tensor(item[name], f"{where}, {name}") for name in INPUTS if name in item}
    shape = given[IDS].shape
    if wrong := [f"{name} {tuple(x.shape)}" for name, x in given.items() if x.shape != shape or x.dim() != 2]:
        raise DataError(f"{where}: expected inputs of one shape (b, tokens), got {', '.join(wrong)}")
    if TYPES in given and MASK not in given:
        given[MASK] = torch.ones_like(given[IDS])
    inputs = tuple(given[name].long() for name in INPUTS if name in given)
    return Batch(inputs, _target(item, given, where) if labelled else None)


def _target(item: Mapping[str, Any], given: Mapping[str, torch.Tensor], where: str) -> torch.Tensor:
    label = next((item[name] for name in LABELS if item.get(name) is not None), None)
    target = given[IDS].long() if label is None else to_target(label, f"{where}, labels")
    if target.shape == given[IDS].shape and MASK in given:
        target = torch.where(given[MASK].bool(), target, IGNORED)
    return target


def without_padding(batch: Batch) -> list[Batch]:
    """The same sequences without padding, in batches of one length each; the batch itself if nothing is padded.

    Padding is where the second input, the attention mask, is 0: before or after the sequence.

    Raises:
        DataError: a sequence is all padding, or has padding inside.
    """
    if len(batch.inputs) < 2 or bool(batch.inputs[1].bool().all()):
        return [batch]
    mask = batch.inputs[1].bool()
    lengths, starts = mask.sum(dim=1), mask.int().argmax(dim=1)
    inside = torch.arange(mask.shape[1]) - starts[:, None]
    if bool((lengths == 0).any()) or bool((mask != ((inside >= 0) & (inside < lengths[:, None]))).any()):
        raise DataError(
            "expected an attention mask of ones for each sequence and zeros before or after it, got one without ones "
            "or with zeros between them"
        )
    cut: list[Batch] = []
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero()[:, 0]
        places = starts[rows, None] + torch.arange(length)
        cut.append(Batch(tuple(x[rows].gather(1, places) for x in batch.inputs)))
    return cut
