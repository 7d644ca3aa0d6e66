"""Contract tests of what plugs into the network's side: good plug-ins pass, broken ones are told in a sentence."""

from __future__ import annotations

import itertools
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.core.cost import Polynomial
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.modules import adapting
from autoprune.prune.structure.rules import RULES
from autoprune.testing import (
    check_adapter,
    check_cost,
    check_criterion,
    check_data,
    check_exporter,
    check_fix,
    check_loss,
    check_masks,
    check_rule,
    check_tracker,
)

counter = itertools.count(1)


def refused(check, broken, sentence):
    with pytest.raises(AssertionError, match=sentence) as told:
        check(broken)
    assert type(told.value) is AssertionError


# costs


@autoprune.cost_factory
def half(structure, model, example):
    return 0.5 * structure.cost.costs["macs"]


@autoprune.vectorised
def squares(kept):
    return sum(count**2 for count in kept.values())


@autoprune.cost_factory
def drifting(structure, model, example):
    scale = float(next(counter))
    return lambda kept: scale * sum(kept.values())


GOOD_COSTS = [
    lambda kept: float(sum(kept.values())),
    half,
    squares,
    autoprune.cost_factory(lambda structure, model, example: squares),
    autoprune.cost_factory(lambda structure, model, example: lambda kept: float(model(*example).shape[1])),
]


@pytest.mark.parametrize("cost", GOOD_COSTS)
def test_a_cost_that_keeps_the_contract_passes(cost):
    check_cost(cost)
    check_cost(cost, nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(1, 5))


@pytest.mark.parametrize(
    ("cost", "sentence"),
    [
        (3.0, "expected a function or a factory, got a float"),
        (lambda kept: kept["no unit"], "raised KeyError.*docs/plugins.md#cost"),
        (lambda kept: math.nan, "finite number of 0 or more, got nan"),
        (lambda kept: -1.0, "finite number of 0 or more, got -1"),
        (lambda kept: 1.0 / sum(kept.values()), "least at the smallest network"),
        (lambda structure, model, example: 1.0, "Mark a factory"),
        (autoprune.cost_factory(lambda structure, model, example: None), "to return a function of kept counts"),
        (autoprune.cost_factory(lambda structure, model, example: Polynomial.of("b")), "units of the network, got 'b'"),
        (drifting, "expected the factory to make the same cost each time"),
        (autoprune.vectorised(lambda kept: kept["0"] / kept["0"].max()), "the same alone and beside others"),
    ],
)
def test_a_cost_that_breaks_the_contract_is_told_how(cost, sentence):
    refused(check_cost, cost, sentence)


# criteria and mask rules


@autoprune.needs("gradients")
def by_gradients(weights, statistics):
    return statistics.gradients.abs().mean(dim=0)


@pytest.mark.parametrize("criterion", [*(CRITERIA[name] for name in ("obs", "l1", "taylor", "flap")), by_gradients])
def test_a_criterion_that_keeps_the_contract_passes(criterion):
    check_criterion(criterion)


@pytest.mark.parametrize(
    ("criterion", "sentence"),
    [
        ("l1", "expected a function of .weights, statistics., got a str"),
        (lambda weights, statistics: None, "finite scores, got NoneType"),
        (lambda weights, statistics: torch.ones(2), r"expected \(6,\) finite scores, got shape \(2,\)"),
        (lambda weights, statistics: weights.producers[0].sum(1) * math.nan, "6 not finite"),
        (lambda weights, statistics: torch.rand(len(weights.producers[0])), "the same scores each time"),
        (lambda weights, statistics: statistics.consumers[9].mean, "it raised IndexError"),
        (lambda weights, statistics: weights.inputs, "it raised AttributeError: .*'inputs'"),
        (lambda weights: weights, "it raised TypeError"),
    ],
)
def test_a_criterion_that_breaks_the_contract_is_told_how(criterion, sentence):
    refused(check_criterion, criterion, sentence)


def test_a_mask_rule_that_keeps_the_contract_passes():
    check_masks(lambda weight, moments: weight.abs())
    check_masks(
        lambda weight, moments: weight**2 if moments is None else weight**2 * moments.gram.diagonal(0, 1, 2)[:, None]
    )


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (None, "expected a function of .weight, moments., got a NoneType"),
        (lambda weight, moments: weight.abs().tolist(), "finite scores, got list"),
        (lambda weight, moments: weight.abs().sum(2), "finite scores, got shape"),
        (lambda weight, moments: weight / 0, "finite scores, got shape"),
        (lambda weight, moments: torch.rand_like(weight), "the same scores each time"),
        (lambda weight, moments: weight * moments.mean[:, None], "it raised AttributeError: 'NoneType' object"),
    ],
)
def test_a_mask_rule_that_breaks_the_contract_is_told_how(scores, sentence):
    refused(check_masks, scores, sentence)


# losses


def test_a_loss_that_keeps_the_contract_passes():
    check_loss(lambda output, batch: nn.functional.cross_entropy(output, batch.target))
    check_loss(lambda output, batch: (output - batch.dense).square().mean())


def stepping(output, batch):
    loss = output.sum()
    loss.backward()
    return loss


def writing(output, batch):
    batch.inputs[0].zero_()
    return output.sum()


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (3, "expected a function of .output, batch., got a int"),
        (lambda output, batch: output, "expected finetune.loss to return a scalar tensor with a gradient"),
        (lambda output, batch: output.sum().item(), "scalar tensor with a gradient, of shape .., got 3"),
        (lambda output, batch: output.detach().sum(), "scalar tensor with a gradient"),
        (lambda output, batch: output.sum().reshape(1), r"of shape \(\), got a tensor of shape \(1,\) with one"),
        (stepping, "changed the gradient of 0.weight, .* of the network.* training calls backward"),
        (lambda output, batch: output.sum() * math.inf, "expected a finite loss, got"),
        (lambda output, batch: output.sum() * next(counter), "the same loss each time"),
        (lambda output, batch: output.sum() * 0, "whose gradient reaches the network"),
        (writing, "changed the batch in place"),
        (lambda output: output.sum(), "it raised TypeError"),
        (lambda output, batch: output.logits.sum(), "it raised AttributeError: .*'logits'"),
    ],
)
def test_a_loss_that_breaks_the_contract_is_told_how(loss, sentence):
    refused(check_loss, loss, sentence)


def test_a_check_of_a_loss_without_batches_is_none():
    refused(lambda batches: check_loss(stepping, batches=batches), [], "expected at least one batch, got none")


# rules of operators, adapters, fixes


@pytest.fixture
def registries():
    """What a test registers is gone after it."""
    kept = [(registry, dict(registry)) for registry in (RULES, adapting.ADAPTERS, adapting.FIXES)]
    yield
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)


@torch.library.custom_op("checks::scaled", mutates_args=())
def scaled(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * scale


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, x):
        return scaled(x, self.scale)


def scaling():
    return nn.Sequential(nn.Linear(5, 8), Scaled(), nn.Linear(8, 3)).eval()


def related(recorder, call):
    from autoprune.prune.structure.axes import unify

    x, scale = recorder.axes(call["x"]), recorder.axes(call["scale"])
    unify(x[1], scale[0], call.where)
    return x


@pytest.mark.usefixtures("registries")
def test_a_rule_that_keeps_the_contract_passes():
    autoprune.rule("checks::scaled")(related)
    check_rule("checks::scaled", scaling(), torch.randn(2, 5))


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (None, "expected a rule for the operator 'checks::scaled', but none is registered"),
        (lambda recorder, call: recorder.axes(call["y"]), "stay whole because of 'checks::scaled'"),
        (lambda recorder, call: None, "because of 'checks::scaled', got: made by operator"),
        (lambda recorder, call: recorder.axes(call["x"]), "stay whole because of 'checks::scaled', got: does not run"),
        (lambda recorder: (), "stay whole because of 'checks::scaled'"),
        (lambda recorder, call: recorder.no_such_thing, "stay whole because of 'checks::scaled'"),
    ],
)
def test_a_rule_that_breaks_the_contract_is_told_how(rule, sentence):
    if rule is not None:
        autoprune.rule("checks::scaled")(rule)
    refused(lambda name: check_rule(name, scaling(), torch.randn(2, 5)), "checks::scaled", sentence)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("rule", [lambda recorder, call: recorder.axes(call["x"]), lambda recorder, call: None])
def test_a_wrong_rule_is_told_where_other_units_can_be_pruned(rule):
    autoprune.rule("checks::scaled")(rule)
    deeper = nn.Sequential(*scaling(), nn.ReLU(), nn.Linear(3, 2)).eval()
    refused(lambda name: check_rule(name, deeper, torch.randn(2, 5)), "checks::scaled", "stay whole because of")


@pytest.mark.usefixtures("registries")
def test_a_network_that_does_not_call_the_operator_is_refused():
    autoprune.rule("checks::scaled")(related)
    plain = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).eval()
    refused(lambda name: check_rule(name, plain, torch.randn(2, 5)), "checks::scaled", "expected a network that calls")


class Votes(nn.Linear):
    """Insists on eight features."""

    def forward(self, x):
        return super().forward(x).view(x.shape[0], 3, 8).mean(1)


class FreeVotes(Votes):
    def forward(self, x):
        return nn.Linear.forward(self, x).view(x.shape[0], 3, -1).mean(1)


def voting():
    return nn.Sequential(nn.Linear(5, 6), Votes(6, 24), nn.Linear(8, 3)).eval()


@pytest.mark.usefixtures("registries")
def test_an_adapter_that_keeps_the_contract_passes():
    autoprune.adapter(Votes)(FreeVotes)
    check_adapter(Votes, voting(), torch.randn(2, 5))


class Doubling(FreeVotes):
    def forward(self, x):
        return 2 * super().forward(x)


class Breaking(Votes):
    def forward(self, x):
        return self.no_such_thing


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("adapter", "model", "sentence"),
    [
        (None, voting, "expected an adapter for Votes, but none is registered"),
        (FreeVotes, scaling, "expected a network with a Votes in it, but there is none"),
        (Doubling, voting, "Doubling to compute what Votes computes; .* outputs differ by 1"),
        (Breaking, voting, "Breaking to compute what Votes computes; .* it raises AttributeError"),
        (FreeVotes, lambda: Votes(6, 24).eval(), "expected units of '' that can be pruned, but there are none"),
    ],
)
def test_an_adapter_that_breaks_the_contract_is_told_how(adapter, model, sentence):
    if adapter is not None:
        autoprune.adapter(Votes)(adapter)
    width = 6 if model is not voting and model is not scaling else 5
    refused(lambda kind: check_adapter(kind, model(), torch.randn(2, width)), Votes, sentence)


class Checked(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.wanted = f"{inputs} features"

    def forward(self, x):
        if f"{x.shape[-1]} features" != self.wanted:
            raise ValueError(f"wanted {self.wanted}")
        return super().forward(x)


def checking():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), Checked(8, 3)).eval()


def follow(module):
    module.wanted = f"{module.weight.shape[1]} features"


@pytest.mark.usefixtures("registries")
def test_a_fix_that_keeps_the_contract_passes():
    autoprune.fix(Checked)(follow)
    check_fix(Checked, checking(), torch.randn(2, 5))


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("fix", "model", "sentence"),
    [
        (None, checking, "expected a fix for Checked, but none is registered"),
        (lambda module: None, checking, "there are none: .*wanted 8 features"),
        (
            lambda module: setattr(module, "wanted", "9 features"),
            checking,
            "there are none: .*wanted 9 features",
        ),
        (lambda module: module.no_such_thing, checking, "no_such_thing"),
        (follow, scaling, "expected a network with a Checked in it"),
    ],
)
def test_a_fix_that_breaks_the_contract_is_told_how(fix, model, sentence):
    if fix is not None:
        autoprune.fix(Checked)(fix)
    refused(lambda kind: check_fix(kind, model(), torch.randn(2, 5)), Checked, sentence)


# exporters


class Weights:
    name = "weights"

    def write(self, network, facts, example, directory):
        torch.save(network.state_dict(), directory / "weights.pt")


@pytest.mark.parametrize("exporter", [Weights, Weights(), "autoprune", "pt2"])
def test_an_exporter_that_keeps_the_contract_passes(exporter):
    check_exporter(exporter)


def writing_by(write):
    return SimpleNamespace(name="mine", write=write)


def changing(network, facts, example, directory):
    (directory / "a").touch()
    network[0].weight.data.zero_()


@pytest.mark.parametrize(
    ("exporter", "sentence"),
    [
        ("onxn", "expected a format, one of"),
        (nn.Identity, "expected an exporter with a name and write"),
        (writing_by(lambda *given: None), "to write at least one file, but it wrote none"),
        (
            writing_by(lambda n, f, e, d: (d.parent / "a").touch() or (d / "a").touch()),
            "lie beside it. Write into the directory",
        ),
        (writing_by(lambda n, f, e, d: (d / f"{next(counter)}").touch()), "expected the same files each time"),
        (writing_by(changing), "the exporter changed 0.weight of the network"),
        (
            writing_by(lambda n, f, e, d: n.train() and (d / "a").touch()),
            "changed the training mode, the training",
        ),
        (writing_by(lambda n, f, e, d: n[1].train() and (d / "a").touch()), "changed the training mode of '1' of"),
        (writing_by(lambda n, f, e, d: n.double() and (d / "a").touch()), "changed 1.running_mean, .* more of the net"),
        (writing_by(lambda n, f, e, d: n.append(nn.ReLU()) and (d / "a").touch()), "changed the class of '8'"),
        (
            writing_by(lambda n, f, e, d: n.register_forward_hook(print) and (d / "a").touch()),
            "changed the hooks",
        ),
        (writing_by(lambda n, f, e, d: n[0].requires_grad_(False) and (d / "a").touch()), "requires_grad of 0.weight"),
        (
            writing_by(lambda n, f, e, d: (d / "a").touch() or os.chdir(d)),
            "the current directory from .*export",
        ),
        (
            writing_by(lambda n, f, e, d: (d / "a").symlink_to(__file__)),
            "to write files, but it wrote the links a. Copy",
        ),
        (writing_by(lambda n, f, e, d: (d / "a").mkdir()), "at least one file, but it wrote none"),
        (writing_by(lambda n, f, e, d: e[0].zero_() is None or (d / "a").touch()), "changed the example in place"),
        (writing_by(lambda n, f, e, d: (d / f.row["candidate"]).touch()), "it raised AttributeError: .*'row'"),
        (writing_by(lambda network: None), "it raised TypeError"),
    ],
)
def test_an_exporter_that_breaks_the_contract_is_told_how(exporter, sentence):
    refused(check_exporter, exporter, sentence)


# trackers


class Counting:
    def __init__(self):
        self.count = 0

    def started(self, facts):
        self.count = facts["done"]

    def evaluated(self, evaluation, n, total):
        self.count += 1

    def finished(self, rows):
        self.best = max((row["accuracy"] for row in rows), default=None)


def counting(**hooks):
    """A tracker with other hooks."""
    return type("Broken", (Counting,), hooks)


def test_a_tracker_that_keeps_the_contract_passes():
    check_tracker(Counting)
    check_tracker(Counting())


@pytest.mark.parametrize(
    ("tracker", "sentence"),
    [
        ("log.csv", "expected a tracker, or a class or function that makes one, got a str"),
        (object, "which has no started and no evaluated and no finished"),
        (counting(finished=None), "which has no finished"),
        (counting(evaluated=lambda self, e, n, total: setattr(self, "x", e.values["accuracy"])), "raised KeyError"),
        (counting(finished=lambda self, rows: setattr(self, "x", rows[0])), "it raised IndexError"),
        (counting(started=lambda self, facts: facts.clear()), "changed its arguments"),
        (counting(finished=lambda self, rows: "done"), "to return None, got 'done'"),
        (counting(evaluated=lambda self, evaluation: None), "it raised TypeError"),
        (counting(started=lambda self, facts: facts.name), "it raised AttributeError"),
    ],
)  # fmt: skip
def test_a_tracker_that_breaks_the_contract_is_told_how(tracker, sentence):
    refused(check_tracker, tracker, sentence)


# data


def arrays(seed=0, count=8):
    rng = np.random.default_rng(seed)

    def images():
        return rng.standard_normal((count, 3)).astype(np.float32)

    return (images(),), (images(), rng.integers(0, 2, count)), (images(), rng.integers(0, 2, count))


def train_of(seeds):
    rows = [(torch.full((2, 3), float(seed)), torch.zeros(2, dtype=torch.int64)) for seed in seeds]
    return autoprune.Data.from_arrays(*arrays(), train=iter(rows))


def test_data_that_keep_the_contract_pass():
    check_data(lambda: autoprune.Data.from_arrays(*arrays()))
    check_data(autoprune.Data.from_arrays(*arrays(), train=arrays(5)[1]))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (np.zeros((4, 2)), "expected an autoprune.data.Data of three disjoint sets, got a ndarray"),
        (lambda: None, "got a NoneType"),
        (
            lambda: autoprune.Data.from_arrays(*arrays(next(counter))),
            "the same data each time they are made, but calibrate",
        ),
        (lambda: autoprune.Data.from_arrays(arrays()[0], *arrays()[1:2] * 2), "select and report to be disjoint"),
        (lambda: autoprune.Data.from_arrays(arrays()[0][0] * np.nan, *arrays()[1:]), "NaN"),
        (lambda: train_of([1, 2, 3, 4, 5, 6, 7, 8]), "the same first batches each time it is read"),
        (lambda seed: None, "it raised TypeError"),
        (lambda: autoprune.Data.no_such_reader(), "it raised AttributeError"),
    ],
)
def test_data_that_break_the_contract_are_told_how(data, sentence):
    refused(check_data, data, sentence)
