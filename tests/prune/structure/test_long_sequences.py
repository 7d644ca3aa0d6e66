"""The analysis of a sequence takes no longer per position than the network itself, whatever its forward computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import autoprune
from autoprune.prune.structure.axes import PIECES, Atom, concatenate, cut_axis, leaves, unify
from autoprune.prune.structure.trace import trace

TOKENS = 2048


class Packed(nn.Module):
    """A decoder layer that finds the sequences packed in a row by the differences of their positions."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(16, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 16)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        steps = torch.diff(positions, prepend=positions[:, :1] - 1, dim=-1)
        if not bool(((steps != 1).cumsum(-1)[:, -1] == 0).all()):
            raise ValueError("expected a single sequence in each row")
        x = self.tokens(ids)
        q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.relu(self.up(x))))


def kinds(structure):
    return [(unit.kind, unit.width) for unit in structure.units]


def test_differences_of_neighbouring_positions_do_not_take_an_axis_apart():
    torch.manual_seed(0)
    model = Packed().eval()
    short = autoprune.find_structure(model, torch.randint(0, 16, (1, 8)))
    long = autoprune.find_structure(model, torch.randint(0, 16, (1, TOKENS)))
    assert kinds(long) == kinds(short)
    assert ("neurons", 12) in kinds(long)


class Largest(TorchDispatchMode):
    """Keeps the number of entries of the largest tensor that an operator returns."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.entries = max([self.entries, *(x.numel() for x in tree_leaves(output) if isinstance(x, torch.Tensor))])
        return output


def test_verify_never_has_the_scores_of_all_heads_in_memory():
    torch.manual_seed(0)
    model, ids = Packed().eval(), torch.randint(0, 16, (1, TOKENS))
    structure = autoprune.find_structure(model, ids[:, :8])
    assert "head_dim" in {unit.kind for unit in structure.units}
    small = autoprune.shrink(model, structure, 0.5)
    with Largest() as largest:
        assert autoprune.verify(model, small, structure, ids).ok
    assert largest.entries < TOKENS**2


class Windowed(Packed):
    """Runs one operator more on sequences that are longer than its window."""

    def forward(self, ids):
        output = super().forward(ids)
        return output if ids.shape[1] <= 512 else output.tanh()


@pytest.mark.parametrize(("kind", "tokens", "shorter"), [(Packed, 600, 1), (Packed, 250, 0), (Windowed, 600, 0)])
def test_units_are_verified_on_fewer_tokens_if_these_run_the_same_operators(kind, tokens, shorter):
    torch.manual_seed(0)
    model, ids = kind().eval(), torch.randint(0, 16, (1, tokens))
    structure = autoprune.find_structure(model, ids)
    assert sum("was verified on the first 256 of" in note for note in structure.notes) == shorter
    traced = trace(model, ids)
    assert kinds(structure) == kinds(traced)
    assert structure.cost == traced.cost


def test_pieces_of_positions_that_stay_leave_the_axis_whole():
    axis = Atom(TOKENS, "model input")
    for end in range(1, TOKENS):
        first, rest = cut_axis(axis, [0, end, TOKENS], "test")
        assert (first.frozen, rest.frozen) == ("model input", "model input")
    assert list(leaves(axis)) == [axis]


class Neighbours(nn.Module):
    """Adds each feature to the next one."""

    def __init__(self, width, step):
        super().__init__()
        self.a, self.b, self.step = nn.Linear(3, width), nn.Linear(width - step, 3), step

    def forward(self, x):
        y = self.a(x)
        return self.b(y[:, self.step :] + y[:, : -self.step])


def test_features_related_with_their_neighbours_stay_with_the_reason():
    structure = trace(Neighbours(TOKENS, 1), torch.randn(2, 3))
    assert structure.units == ()
    assert any("with itself, moved by a few positions" in row.reason for row in structure.frozen)


def test_an_axis_may_still_be_related_with_itself_in_a_few_pieces():
    axis = Atom(12)
    _, later = cut_axis(axis, [0, 3, 12], "test")
    earlier, _ = cut_axis(axis, [0, 9, 12], "test")
    unify(later, earlier, "test")
    assert {(atom.size, atom.frozen) for atom in leaves(axis)} == {(3, "")}


@pytest.mark.parametrize("moved", [1, 3])
def test_the_largest_number_of_pieces_is_a_few_dozen(moved):
    for size, frozen in ((PIECES * moved, False), (PIECES * moved * 4, True)):
        axis = Atom(size)
        _, later = cut_axis(axis, [0, moved, size], "test")
        earlier, _ = cut_axis(axis, [0, size - moved, size], "test")
        unify(later, earlier, "test")
        assert all(bool(atom.frozen) == frozen for atom in leaves(axis))


def test_an_axis_of_many_pieces_is_cut_in_time_that_grows_with_their_number():
    pieces = [Atom(2) for _ in range(TOKENS)]
    whole = concatenate(pieces)
    assert cut_axis(whole, range(0, 2 * TOKENS + 1, 2), "test") == pieces


@pytest.mark.parametrize("tokens", [64, TOKENS])
def test_a_llama_of_transformers_is_analysed_with_long_sequences(tokens):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TOKENS,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 32, (1, tokens))
    structure = autoprune.find_structure(model, {"input_ids": ids, "use_cache": False})
    found = kinds(structure)
    assert found.count(("neurons", 24)) == 1
    assert found.count(("heads", 2)) == 2
    assert found.count(("channels", 16)) == 1
    assert found.count(("branches", 1)) == 2
