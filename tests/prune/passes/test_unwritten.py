"""Copies that share parameters: the passes leave the parameters as they were, whatever a forward writes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autoprune
from autoprune.prune.modules.copies import copy_model, shares_parameters
from autoprune.prune.modules.copying import model_digest
from autoprune.prune.passes.examples import as_examples
from autoprune.prune.passes.unwritten import unwritten


class Renormed(nn.Module):
    """An embedding that scales the rows that it looks up, in place."""

    def __init__(self):
        super().__init__()
        self.tokens, self.a, self.b = nn.Embedding(9, 6, max_norm=0.5), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.a(self.tokens(x)).relu())


class Clipped(Renormed):
    """Clips a weight whenever it trains, past autograd and its versions."""

    def forward(self, x):
        if self.training:
            self.a.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x)


@pytest.mark.parametrize("kind", [Renormed, Clipped])
def test_analysis_and_proof_leave_the_network_as_it_was(kind):
    torch.manual_seed(0)
    model, ids = kind().eval(), torch.arange(8).view(2, 4)
    before = model_digest(model)
    structure = autoprune.find_structure(model, ids)
    small = autoprune.shrink(model, structure, {"a": 3})
    of_small = model_digest(small)
    assert autoprune.verify(model, small, structure, ids).ok
    assert model_digest(model) == before
    assert model_digest(small) == of_small


@pytest.mark.parametrize("kind", [Renormed, Clipped])
@pytest.mark.parametrize("train", [False, True])
def test_a_pass_of_a_sharing_copy_undoes_its_writes(kind, train):
    torch.manual_seed(0)
    model, ids = kind(), torch.arange(8).view(2, 4)
    (example,) = as_examples(ids)
    before = model_digest(model)
    shared = copy_model(model, share=True).train(train)
    assert shared.a.weight.data_ptr() == model.a.weight.data_ptr()
    own = copy_model(model).train(train)
    assert (shares_parameters(shared), shares_parameters(own)) == (True, False)
    assert torch.equal(example.run(shared), own(ids))
    assert model_digest(model) == before
    assert model_digest(own) != before


def test_writes_are_undone_after_an_exception():
    model = nn.Linear(3, 2)
    before = model_digest(model)

    def write():
        with torch.no_grad(), unwritten(model):
            model.weight[0].zero_()
            torch.add(model.bias, 1, out=model.bias)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert model_digest(model) == before


def test_tied_parameters_are_put_back_together():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data = model[0].weight.data.t()
    before = model_digest(model)
    with torch.no_grad(), unwritten(model):
        model[1].weight.mul_(2)
    assert model_digest(model) == before


def test_buffers_of_a_sharing_copy_are_its_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = model_digest(model)
    copy_model(model, share=True).train()(torch.randn(4, 3, 5, 5))
    assert model_digest(model) == before
