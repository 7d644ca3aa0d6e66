"""Recurrent layers on packed sequences lose hidden units as those on padded ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import autoprune

HIDDEN, KEPT = 8, [0, 2, 3, 7]


class Tagger(nn.Module):
    """Words to tags at every place, and to classes from the last hidden states."""

    def __init__(self, rnn, ordered=False, total=None):
        super().__init__()
        self.embed, self.rnn, self.ordered, self.total = nn.Embedding(20, 6), rnn, ordered, total
        ways = 2 if rnn.bidirectional else 1
        self.tags, self.classes = nn.Linear(ways * (rnn.proj_size or HIDDEN), 5), nn.Linear(rnn.proj_size or HIDDEN, 3)

    def forward(self, words, lengths):
        first = self.rnn.batch_first
        x = self.embed(words if first else words.t())
        packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=self.ordered)
        y, state = self.rnn(packed)
        padded, _ = pad_packed_sequence(y, batch_first=first, padding_value=0.5, total_length=self.total)
        return self.tags(padded), self.classes((state[0] if isinstance(state, tuple) else state)[-1])


def sentences(lengths):
    torch.manual_seed(0)
    return torch.randint(1, 20, (len(lengths), 6)), torch.tensor(lengths)


def without(model, kept):
    """The dense network of one layer and direction in which nothing reads the hidden units that go."""
    gone = [unit for unit in range(HIDDEN) if unit not in kept]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in ("rnn.weight_hh_l0", "tags.weight", "classes.weight"):
                weight[:, gone] = 0
    return model


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_hidden_units_go_whatever_the_order_and_the_layout(kind, batch_first, ordered):
    model = Tagger(kind(6, HIDDEN, batch_first=batch_first), ordered).eval()
    example = sentences([6, 4, 3] if ordered else [4, 6, 3])
    structure = autoprune.find_structure(model, example)
    assert [(unit.name, unit.kind, unit.width) for unit in structure.units] == [
        ("embed", "neurons", 6),
        ("rnn", "neurons", HIDDEN),
    ]
    assert structure.frozen == ()
    small = autoprune.shrink(model, structure, {"rnn": KEPT})
    assert small.rnn.hidden_size == len(KEPT)
    other = sentences([6, 2, 1, 1] if ordered else [1, 2, 6, 1])
    with torch.no_grad():
        torch.testing.assert_close(small(*other), without(model, KEPT)(*other))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("projection", [0, 3])
def test_layers_both_ways_are_found_as_without_packing(layers, projection):
    model = Tagger(nn.LSTM(6, HIDDEN, layers, bidirectional=True, proj_size=projection), total=7).eval()
    structure = autoprune.find_structure(model, sentences([2, 6]))
    assert ("rnn", projection or HIDDEN) in [(unit.name, unit.width) for unit in structure.units]
    small = autoprune.shrink(model, structure, 0.5)
    report = autoprune.verify(model, small, structure, sentences([2, 6]))
    assert report.ok, report


class Lists(nn.Module):
    """Sequences that are packed as a list, and a packed sequence that is built by hand."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(20, 6), nn.GRU(6, HIDDEN), nn.Linear(HIDDEN, 3)

    def forward(self, first, second):
        packed = pack_sequence([self.embed(first), self.embed(second)])
        packed = PackedSequence(packed.data.relu(), packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return self.head(self.rnn(packed)[0].data)


def test_sequences_are_packed_in_other_ways_too():
    model, example = Lists().eval(), (torch.randint(0, 20, (5,)), torch.randint(0, 20, (3,)))
    structure = autoprune.find_structure(model, example)
    assert [(unit.name, unit.width) for unit in structure.units] == [("embed", 6), ("rnn", HIDDEN)]
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, example).ok
