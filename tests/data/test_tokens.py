"""Sequences of tokens from one long text, and batches of dictionaries with padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoprune import Data
from autoprune.data.padding import from_dict, without_padding
from autoprune.errors import DataError

COUNTS = {"length": 5, "calibrate": 3, "select": 4, "report": 2, "batch_size": 3}


def rows(batches):
    return torch.cat([batch.inputs[0] for batch in batches])


def test_every_sequence_is_in_one_set_and_the_report_set_is_the_end():
    data = Data.from_tokens(np.arange(62), **COUNTS)  # 12 sequences and 2 tokens that are left over
    sets = [data.calibrate, data.select, data.report, data.train]
    assert [len(rows(batches)) for batches in sets] == [3, 4, 2, 3]
    assert torch.equal(torch.cat([rows(batches) for batches in sets]).sort(dim=0).values, torch.arange(60).view(12, 5))
    assert torch.equal(rows(data.report), torch.arange(50, 60).view(2, 5))
    assert all(torch.equal(batch.inputs[0], batch.target) for batch in data.select)
    assert data.description["length"] == 5
    assert data.description["reader"] == "tokens"


def test_another_seed_gives_other_sets_and_the_same_report_set():
    first, second = (Data.from_tokens(torch.arange(60), **COUNTS, seed=seed) for seed in (0, 1))
    assert not torch.equal(rows(first.select), rows(second.select))
    assert torch.equal(rows(first.report), rows(second.report))


@pytest.mark.parametrize(
    ("given", "changed", "message"),
    [
        (np.arange(44), {}, r"at least 9 sequences \(calibrate 3, select 4, report 2\), got 8"),
        (np.arange(4), {}, "at least one sequence of 5 tokens, got 4 tokens"),
        (np.arange(60.0), {}, r"whole numbers in one dimension, got torch.float64 of shape \(60,\)"),
        (np.arange(60).reshape(12, 5), {}, r"one dimension, got torch.int64 of shape \(12, 5\)"),
        (np.arange(60), {"length": 1}, "expected length as a whole number of at least 2, got 1"),
        (np.arange(60), {"select": 0}, "expected select as a whole number of at least 1, got 0"),
    ],
)
def test_what_makes_no_sets_is_refused_with_a_sentence(given, changed, message):
    with pytest.raises(DataError, match=message):
        Data.from_tokens(given, **{**COUNTS, **changed})


def padded(*lengths, left=False):
    """A tokenizer's dictionary: sequences 10, 11, ... of these lengths."""
    longest = max(lengths)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
    mask = mask.flip(1) if left else mask
    values = torch.arange(10, 10 + mask.numel()).view_as(mask)
    return {"input_ids": values * mask, "attention_mask": mask}


def test_a_dictionary_without_labels_is_its_own_target_except_for_padding():
    batch = from_dict(padded(3, 2), "here", labelled=True)
    assert batch.target.tolist() == [[10, 11, 12], [13, 14, -100]]
    assert [x.tolist() for x in batch.inputs] == [[[10, 11, 12], [13, 14, 0]], [[1, 1, 1], [1, 1, 0]]]


def test_labels_of_tokens_lose_the_padding_and_labels_of_classes_stay():
    item = padded(3, 2)
    tokens = from_dict({**item, "labels": torch.full((2, 3), 7)}, "here", labelled=True)
    assert tokens.target.tolist() == [[7, 7, 7], [7, 7, -100]]
    assert from_dict({**item, "label": [1, 0]}, "here", labelled=True).target.tolist() == [1, 0]


@pytest.mark.parametrize("left", [False, True])
def test_calibration_batches_are_cut_to_the_tokens_of_their_sequences(left):
    item = padded(3, 2, 3, left=left)
    cut = without_padding(from_dict(item, "here", labelled=False))
    assert [tuple(batch.inputs[0].shape) for batch in cut] == [(1, 2), (2, 3)]
    whole = [row[mask.bool()].tolist() for row, mask in zip(item["input_ids"], item["attention_mask"], strict=True)]
    assert cut[0].inputs[0].tolist() + cut[1].inputs[0].tolist() == [whole[1], whole[0], whole[2]]
    assert all(bool(batch.inputs[1].all()) for batch in cut)


def test_loaders_may_give_dictionaries_of_several_lengths():
    def moved(item, by):
        return {**item, "input_ids": (item["input_ids"] + by) * item["attention_mask"]}

    items = [moved(padded(4, 2), by) for by in (0, 100, 200)]
    data = Data.from_loaders(items[:1], [items[1], moved(padded(6), 300)], items[2:])
    assert [tuple(batch.inputs[0].shape) for batch in data.calibrate] == [(1, 2), (1, 4)]
    assert [tuple(batch.inputs[0].shape) for batch in data.select] == [(2, 4), (1, 6)]
    assert data.select[0].target[1].tolist() == [114, 115, -100, -100]


def test_wrong_dictionaries_are_refused_with_a_sentence():
    item = padded(3, 2)
    with pytest.raises(DataError, match="here: expected a dictionary with input_ids, .* got input_ids, pixels"):
        from_dict({"input_ids": item["input_ids"], "pixels": item["input_ids"]}, "here", labelled=True)
    with pytest.raises(DataError, match=r"inputs of one shape \(b, tokens\), got attention_mask \(2, 2\)"):
        from_dict({**item, "attention_mask": item["attention_mask"][:, 1:]}, "here", labelled=True)
    with pytest.raises(DataError, match="zeros between them"):
        without_padding(from_dict({**item, "attention_mask": [[1, 0, 1], [1, 1, 1]]}, "here", labelled=False))
    with pytest.raises(DataError, match="without ones"):
        without_padding(from_dict({**item, "attention_mask": [[0, 0, 0], [1, 1, 1]]}, "here", labelled=False))
