"""Gradient and curvature of a group's loss, against closed forms."""

import pytest
import torch
from torch import nn

from autoprune.measure.batch import Batch
from autoprune.measure.harm.second_order import expand
from autoprune.measure.harm.spread import spread_ratios, spreads

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(30, generator=torch.Generator().manual_seed(1))


def squared(model, batch):
    return (model(*batch.inputs)[:, 0] - batch.target).square().mean()


@pytest.fixture
def line():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Linear(4, 1, bias=False).requires_grad_(False)


def test_the_estimate_of_a_quadratic_loss_is_its_change(line):
    change = torch.tensor([[0.3, -2.0, 0.5, 0.0]])
    batch = Batch((X,), Y)
    moved = nn.Linear(4, 1, bias=False)
    moved.weight.data = line.weight + change
    with torch.no_grad():
        expected = float(squared(moved, batch) - squared(line, batch))
    assert expand(line, batch, [{"weight": change}], squared).changes[0] == pytest.approx(expected, rel=1e-5)


def test_the_curvature_is_the_largest_eigenvalue(line):
    hessian = 2 * X.T @ X / 30
    found = expand(line, Batch((X,), Y), loss=squared)
    assert found.curvature == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)
    slope = 2 * X.T @ (X @ line.weight[0] - Y) / 30
    assert found.gradient_norm == pytest.approx(float(slope.norm()), rel=1e-5)


def test_the_model_stays_as_it_was(line):
    before = line.weight.clone()
    expand(line.train(), Batch((X,), Y), loss=squared)
    assert torch.equal(line.weight, before)
    assert line.training
    assert not line.weight.requires_grad
    assert line.weight.grad is None


def test_a_linear_loss_has_no_curvature(line):
    found = expand(
        line, Batch((X,), Y), [{"weight": torch.ones(1, 4)}], lambda model, batch: model(*batch.inputs).sum()
    )
    assert found.curvature == 0
    assert found.changes[0] == pytest.approx(float(X.sum()), rel=1e-4)


def test_cross_entropy_is_expanded_by_default():
    model = nn.Linear(4, 3)
    batch, change = Batch((X,), torch.arange(30) % 3), {"bias": torch.tensor([1e-3, 0, 0])}
    moved = nn.Linear(4, 3)
    moved.load_state_dict({**model.state_dict(), "bias": model.bias.detach() + change["bias"]})
    loss = nn.functional.cross_entropy
    expected = float((loss(moved(X), batch.target).double() - loss(model(X), batch.target).double()).detach())
    assert expand(model, batch, [change]).changes[0] == pytest.approx(expected, abs=3e-7)


def test_spreads_are_compared_at_the_kept_channels():
    dense, pruned = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 2))
    pruned[0].weight.data = dense[0].weight[[0, 2]].detach() / 4
    batches = [Batch((X[:20],)), Batch((X[20:],))]
    whole = spreads(dense, batches)
    assert torch.allclose(whole["0"], dense(X).detach().var(dim=0, correction=0), rtol=1e-4)
    ratios = spread_ratios(spreads(pruned, batches), whole, {"0": [0, 2]})
    assert ratios == {"0": pytest.approx(0.25, rel=1e-4)}
