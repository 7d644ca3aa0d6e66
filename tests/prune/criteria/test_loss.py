"""Statistics of the loss against autograd done the long way: example by example, second derivative by second."""

from __future__ import annotations

import pytest
import torch
from networks import PooledHead, Residual, fingerprint, images, network, same
from torch import nn
from torch.nn import functional as F

from autoprune.errors import PluginError
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria import loss as gradients
from autoprune.prune.criteria.loss import collect_gradients
from autoprune.prune.criteria.magnitudes import l2
from autoprune.prune.structure.trace import trace


class Small(nn.Module):
    """Smooth, so that second derivatives are not zero; unit "a" has 3 positions."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 5)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()


BATCHES = [(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)),) for seed in (0, 1)]


def collect(model, batches, *needs, **options):
    structure = trace(model, batches[0])
    return collect_gradients(model, structure, structure.units, batches, needs, **options)


def loss_of(model, x, weight):
    """The loss as a function of the weight of layer a alone, on the dense network's own predictions."""
    logits = model.b(torch.tanh(F.linear(x, weight, model.a.bias)))
    return F.cross_entropy(logits, model(x).argmax(dim=1))


def test_a_language_model_predicts_the_token_after_each():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 7))
    tokens = torch.tensor([[1, 5, 2, 6], [0, 3, 3, 4]])
    structure = trace(model, (tokens,))
    found = collect_gradients(model, structure, structure.units, [(tokens,)], ["gradients"])["1"]
    loss = F.cross_entropy(model(tokens[:, :3]).transpose(1, 2), tokens[:, 1:])
    slope = torch.autograd.grad(loss, model[1].weight)[0]
    expected = (slope * model[1].weight).sum(dim=1)
    assert torch.allclose(found.gradients[0].float(), expected.detach(), atol=1e-6)


def test_gradients_are_the_sum_of_weight_times_gradient_for_every_batch(small):
    found = collect(small, BATCHES, "gradients")["a"]
    for row, (x,) in zip(found.gradients, BATCHES, strict=True):
        weight = small.a.weight.detach().requires_grad_()
        slope = torch.autograd.grad(loss_of(small, x, weight), weight)[0]
        assert torch.allclose(row.float(), (slope * weight).sum(dim=1).detach(), atol=1e-6)
    assert found.sample_gradients is None
    assert found.curvature is None


def test_the_first_order_term_is_how_the_loss_changes_when_a_position_fades(small):
    """Finite differences: d/ds of the loss with the weights of position p scaled by s."""
    found, (x,) = collect(small, BATCHES[:1], "gradients")["a"].gradients[0], BATCHES[0]
    double, weight, step = small.double(), small.a.weight.detach(), 1e-5
    for position in range(3):
        losses = []
        for sign in (1, -1):
            scaled = weight.clone()
            scaled[position] *= 1 + sign * step
            losses.append(float(loss_of(double, x.double(), scaled).detach()))
        assert float(found[position]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-3, abs=1e-6)


def test_gradients_of_single_examples_use_classes_drawn_from_the_output(small):
    """The classes are drawn, so both are compared over all classes: each row must belong to one of them."""
    found = collect(small, BATCHES, "sample_gradients")["a"].sample_gradients
    everything = torch.cat([x for (x,) in BATCHES])
    assert found.shape == (12, 3)
    for row, x in zip(found, everything, strict=True):
        candidates = []
        for label in range(5):
            weight = small.a.weight.detach().requires_grad_()
            logits = small.b(torch.tanh(F.linear(x[None], weight, small.a.bias)))
            slope = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([label])), weight)[0]
            candidates.append((slope * weight).sum(dim=1).detach())
        assert min(float((row - candidate).abs().max()) for candidate in candidates) < 1e-6


def test_drawn_classes_have_the_frequencies_of_the_output():
    """With p = 0.7 over 1,000 examples the share of a class is outside 0.64..0.76 once in ten thousand seeds."""
    chances = torch.tensor([0.3, 0.7])
    logits = chances.log().expand(1000, 2)
    loss = float(gradients._loss(nn.Identity(), (logits,), torch.Generator().manual_seed(0)))
    rare, often = (-chances.log()).tolist()
    assert 0.64 < (rare - loss) / (rare - often) < 0.76


def trace_by_position(model, x):
    """(3,) sums of second derivatives by the weights of each position of layer a."""
    hessian = torch.autograd.functional.hessian(lambda w: loss_of(model, x, w), model.a.weight.detach())
    return torch.stack([hessian[p, :, p, :].diagonal().sum() for p in range(3)]).double()


def test_curvature_is_the_trace_of_the_hessian_averaged_over_examples(small, monkeypatch):
    """Random signs have exactly this expectation; with 2,000 of them the error is far below the tolerance."""
    monkeypatch.setattr(gradients, "TRACE_PROBES", 2000)
    (x,), (y,) = BATCHES
    found = collect(small, [(x,), (y[:2],)], "curvature")["a"].curvature
    expected = (6 * trace_by_position(small, x) + 2 * trace_by_position(small, y[:2])) / 8
    assert torch.allclose(found, expected, atol=0.1 * float(expected.abs().max()))


def test_only_the_first_examples_are_taken_one_by_one(small, monkeypatch):
    monkeypatch.setattr(gradients, "LOSS_EXAMPLES", 7)
    assert collect(small, BATCHES, "sample_gradients")["a"].sample_gradients.shape == (7, 3)


def test_the_same_seed_draws_the_same_classes(small):
    first, second = (collect(small, BATCHES, "sample_gradients")["a"].sample_gradients for _ in range(2))
    assert torch.equal(first, second)
    before = torch.random.get_rng_state()
    collect(small, BATCHES, "sample_gradients", "curvature")
    assert torch.equal(before, torch.random.get_rng_state())


def test_several_producers_of_a_unit_are_added():
    model = network([Residual], PooledHead)
    structure = trace(model, images())
    unit = structure.unit("0")
    assert len(unit.with_role("out")) > 1
    x = images()
    found = collect(model, [(x,)], "gradients")["0"].gradients[0]
    copy = network([Residual], PooledHead)
    copy.load_state_dict(model.state_dict())
    copy.eval()
    logits = copy(x)
    F.cross_entropy(logits, logits.argmax(dim=1)).backward()
    parts = [copy.get_parameter(slot.tensor) for slot in unit.with_role("out")]
    expected = sum((part.grad * part).flatten(1).sum(dim=1) for part in parts).detach()
    assert torch.allclose(found.float(), expected, atol=1e-5)


def test_undecayed_is_the_gradient_of_an_objective_less_its_weight_decay(small):
    (x,), weight, decay = BATCHES[0], small.a.weight.detach().clone().requires_grad_(), 0.3
    objective = loss_of(small, x, weight) + decay * weight.square().sum() / 2
    slope = torch.autograd.grad(objective, weight)[0] - decay * weight.detach()
    statistics = collect(small, [(x,)], "gradients")["a"]
    expected = (slope * weight.detach()).sum(dim=1).abs()
    assert torch.allclose(CRITERIA["undecayed"](None, statistics).float(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["taylor", "fisher", "hap", "undecayed"])
def test_flags_modes_and_gradients_of_the_model_stay_as_they_were(name):
    model = network([Residual], PooledHead).train()
    model[0].weight.requires_grad_(False)
    model[1].conv1.weight.grad = torch.ones_like(model[1].conv1.weight)
    before, flags = fingerprint(model), [p.requires_grad for p in model.parameters()]
    structure = trace(model, images())
    with torch.no_grad():
        make_bank(model, structure, [unit.name for unit in structure.units], CRITERIA[name], [(images(),)])
        assert not torch.is_grad_enabled()
    assert same(before, fingerprint(model))
    assert [p.requires_grad for p in model.parameters()] == flags
    assert torch.equal(model[1].conv1.weight.grad, torch.ones_like(model[1].conv1.weight))


def test_half_precision_is_differentiated_in_single_precision(small):
    x = BATCHES[0][0].bfloat16()
    low = Small()
    low.load_state_dict(small.state_dict())
    low = low.bfloat16()
    found = collect(low, [(x,)], "gradients")["a"].gradients
    exact = collect(low.float(), [(x.float(),)], "gradients")["a"].gradients
    assert torch.allclose(found, exact)


def test_attention_has_second_derivatives_too():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.layer(x).mean(dim=1))

    found = collect(Tokens().eval(), [(torch.randn(2, 5, 8),)], "curvature")
    assert all(torch.isfinite(statistics.curvature).all() for statistics in found.values())


def test_a_network_that_returns_no_classes_is_an_error_that_says_so():
    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.b(F.relu(self.a(x)))

    with pytest.raises(PluginError, match=r"expected a network that returns \(examples, classes\).*\(4, 2, 6, 6\)"):
        collect(Map(), [(torch.zeros(4, 3, 6, 6),)], "gradients")


def test_nothing_is_differentiated_for_criteria_that_do_not_ask(small, monkeypatch):
    monkeypatch.setattr("autoprune.prune.criteria.ordering.collect_gradients", None)
    structure = trace(small, BATCHES[0])
    assert sorted(make_bank(small, structure, ["a"], l2, BATCHES).orders["a"]) == [0, 1, 2]


def test_a_units_whose_consumers_have_no_moments_is_ordered_by_l2_and_the_bank_says_so():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x):
            return F.linear(F.relu(self.a(x)), self.b.weight)

    model, x = Direct(), torch.randn(8, 5)
    bank = make_bank(model, trace(model, x), ["a"], CRITERIA["wanda"], [(x,)])
    assert bank.orders["a"].tolist() == model.a.weight.norm(dim=1).argsort(descending=True).tolist()
    assert bank.notes["a"] == "ordered by l2, as none of its consumers has second moments"


def test_branches_alone_have_no_order_that_gradients_would_decide():
    model = network([Residual], PooledHead)
    structure = trace(model, images())
    branches = [unit.name for unit in structure.units if unit.is_branch]
    bank = make_bank(model, structure, branches, CRITERIA["taylor"], [(images(),)])
    assert {name: order.tolist() for name, order in bank.orders.items()} == {name: [0] for name in branches} != {}
