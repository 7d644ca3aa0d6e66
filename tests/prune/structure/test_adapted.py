"""An adapter that computes something else than its class is refused before anything is found with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import PluginError
from autoprune.prune.modules.adapting import ADAPTERS


class Votes(nn.Linear):
    """Three votes on eight features, written as literals."""

    def forward(self, x):
        return super().forward(x).view(x.shape[0], 3, 8).mean(1)


def network(votes):
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), votes, nn.Linear(8, 2))


@pytest.fixture
def adapting(monkeypatch):
    """Registers an adapter of Votes for the test alone."""

    def register(forward, **methods):
        adapter = type("Adapter", (Votes,), {"forward": forward, **methods})
        monkeypatch.setitem(ADAPTERS, Votes, adapter)

    return register


def right(self, x):
    return nn.Linear.forward(self, x).unflatten(-1, (3, -1)).mean(1)


def transposed(self, x):
    return nn.Linear.forward(self, x).unflatten(-1, (-1, 3)).mean(-1)


def wrong_while_training(self, x):
    return right(self, x) * (2 if self.training else 1)


def with_a_second_output(self, x):
    return right(self, x), x


def raising(self, x):
    raise ValueError("no votes")


def in_place(self, x):
    x.mul_(2)
    return right(self, x.div_(2))


def test_an_adapter_that_computes_the_same_is_taken(adapting):
    adapting(right)
    structure = autoprune.find_structure(network(Votes(6, 24)), torch.randn(5, 4))
    assert structure.adapted == ("2",)
    assert ("2", 8) in [(unit.name, unit.width) for unit in structure.units]


def test_an_adapter_that_changes_its_input_in_between_is_taken(adapting):
    adapting(in_place)
    assert autoprune.find_structure(network(Votes(6, 24)), torch.randn(5, 4)).adapted == ("2",)


WRONG = {
    "another order": (transposed, "outputs differ by"),
    "another result in train mode": (wrong_while_training, "outputs differ by"),
    "more outputs": (with_a_second_output, "it returns tensors of shapes"),
    "an error": (raising, "it raises ValueError: no votes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_adapter_that_computes_something_else_is_refused_with_its_name_and_place(adapting, name):
    forward, why = WRONG[name]
    adapting(forward)
    with pytest.raises(
        PluginError, match=f"the adapter Adapter to compute what Votes computes; in module '2', .*{why}"
    ):
        autoprune.find_structure(network(Votes(6, 24)), torch.randn(5, 4))


def test_an_adapter_that_changes_the_weights_when_it_is_put_in_is_refused(adapting):
    adapting(right, adapt=lambda self: setattr(self, "bias", nn.Parameter(self.bias + 1)))
    with pytest.raises(PluginError, match="outputs differ by"):
        autoprune.find_structure(network(Votes(6, 24)), torch.randn(5, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_of_less_precise_networks_is_no_difference(dtype):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(24, 3)).to(dtype).eval()
    assert autoprune.find_structure(model, torch.randn(2, 9, 24, dtype=dtype)).adapted
