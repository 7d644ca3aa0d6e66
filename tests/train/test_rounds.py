"""Pruning in rounds: schedules by hand, exact counts, nested masks, rewound weights, and torch's own pruning."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small_network import Network
from torch import nn
from torch.nn.utils import prune

import autoprune
from autoprune.errors import ConfigError
from autoprune.measure.batch import Batch
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.rounds.masks import narrowed, random_masks, whole_masks
from autoprune.train.rounds.options import Rounds
from autoprune.train.rounds.rounds import prune_rounds
from autoprune.train.rounds.steps import RoundsTraining

NAMES = ("a.weight", "b.weight", "out.weight")
ENTRIES = 8 * 2 * 9 + 6 * 8 * 9 + 3 * 6
PLAN = FineTune(steps=5, lr=0.05, loss="cross_entropy")


def training():
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(10, 2, 5, 5, generator=generator) for _ in range(4)]
    return RoundsTraining(PLAN, TrainingSet.of([Batch((x,), torch.arange(10) % 3) for x in inputs]))


def run(options, how=None, model=None, **more):
    """The outcome, and the networks that were measured."""
    seen = []

    def judge(network):
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"loss": 0.0}

    outcome = prune_rounds(model or Network(), options, how or training(), judge, lambda done: None, **more)
    return outcome, seen


def zeros(tensors, name):
    return tensors[name] == 0


def test_the_cubic_schedule_by_hand():
    """s_f - s_f (1 - k / n)^3 with s_f = 0.8 and n = 4."""
    expected = [0.8 - 0.8 * 0.421875, 0.8 - 0.8 * 0.125, 0.8 - 0.8 * 0.015625, 0.8]
    assert Rounds(0.8, 4, "cubic").sparsities == pytest.approx(expected)


def test_the_geometric_schedule_removes_a_fifth_of_what_is_left():
    assert Rounds(1 - 0.8**5, 5).sparsities == pytest.approx([0.2, 0.36, 0.488, 0.5904, 0.67232])


@pytest.mark.parametrize("rewind", [None, 0, 2])
def test_every_round_keeps_exactly_its_share_and_masks_are_nested(rewind):
    outcome, seen = run(Rounds(1 - 0.8**4, 4, rewind=rewind))
    assert [sum(done.kept.values()) for done in outcome.rounds] == [round(ENTRIES * 0.8**k) for k in range(5)]
    for before, after in itertools.pairwise(seen):
        assert all((zeros(after, name) | ~zeros(before, name)).all() for name in NAMES)
    assert all(torch.equal(zeros(seen[-1], name), ~outcome.masks[name]) for name in NAMES)


def test_each_weight_keeps_its_share_in_the_scope_of_layers():
    outcome, _ = run(Rounds(0.5, 2, scope="layer"))
    assert outcome.rounds[-1].kept == {"a.weight": 72, "b.weight": 216, "out.weight": 9}


@pytest.mark.parametrize("rewind", [0, 3])
def test_the_entries_that_stay_are_rewound_to_the_bit(rewind, monkeypatch):
    """Every training begins with the weights after so many steps of the first one, times the masks."""
    model = Network()
    early = Network()
    early.load_state_dict(model.state_dict())
    whole = whole_masks(model, ["*"], [])
    training().trained(early, whole, 0, rewind)
    begun = []
    trained = RoundsTraining.trained

    def watched(self, network, masks, begin, end):
        begun.append(({name: tensor.clone() for name, tensor in network.state_dict().items()}, masks, begin, end))
        return trained(self, network, masks, begin, end)

    monkeypatch.setattr(RoundsTraining, "trained", watched)
    run(Rounds(0.75, 2, rewind=rewind), model=model)
    for tensors, _, begin, end in begun[2:]:
        assert (begin, end) == (rewind, 5)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in early.state_dict().items())


def test_the_first_training_is_one_training_whatever_step_is_rewound_to():
    """Momentum begins anew at the step; with rewind 0 the dense network is the one of a plain training."""
    model = Network()
    _, seen = run(Rounds(0.5, 1, rewind=0), model=model)
    plain = training().trained(Network(), {}, 0, 0)
    plain.load_state_dict(model.state_dict())
    plain = training().trained(plain, {}, 0, 5)
    assert all(torch.equal(seen[0][name], tensor) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("schedule", ["geometric", "cubic"])
def test_rounds_without_training_are_one_shot_pruning_as_torch_does_it(schedule):
    model = Network()
    outcome, _ = run(Rounds(0.75, 6, schedule), RoundsTraining(None, None), model)
    modules = [(module, "weight") for module in (model.a, model.b, model.out)]
    prune.global_unstructured(modules, prune.L1Unstructured, amount=ENTRIES - round(0.25 * ENTRIES))
    for name, (module, _) in zip(NAMES, modules, strict=True):
        assert torch.equal(outcome.network.get_parameter(name), module.weight)


def test_the_model_is_not_changed_and_the_outcome_is_the_same_again():
    model = Network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, other = (run(Rounds(0.6, 2, rewind=1, controls=True), model=model)[0] for _ in range(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(one.network.state_dict()[n], t) for n, t in other.network.state_dict().items())


def test_the_controls_have_the_same_zeros_or_as_many():
    outcome, seen = run(Rounds(0.6, 2, rewind=0, controls=True))
    fresh, random = seen[-2:]
    assert list(outcome.rounds[-1].controls) == ["reinitialised", "random_mask"]
    for name, mask in outcome.masks.items():
        assert torch.equal(zeros(fresh, name), ~mask)
        assert zeros(random, name).sum() == (~mask).sum()
    assert not all(torch.equal(zeros(random, name), ~mask) for name, mask in outcome.masks.items())


def test_random_masks_are_uniform():
    """Each of 20 entries is kept in about 500 of 1,000 masks that keep half."""
    masks = {"w": torch.arange(20).view(4, 5) < 10}
    counts = sum(random_masks(masks, seed)["w"].int() for seed in range(1000))
    assert int(counts.sum()) == 10_000
    assert float((counts - 500).abs().max()) < 4.5 * np.sqrt(1000 / 4)


def test_removed_entries_never_come_back_although_all_kept_ones_are_zero():
    model = Network()
    masks = narrowed(whole_masks(model, ["b.*"], []), model, 0.5, "global")
    nn.init.zeros_(model.b.weight)
    again = narrowed(masks, model, 0.75, "global")
    assert int(again["b.weight"].sum()) == 108
    assert not (again["b.weight"] & ~masks["b.weight"]).any()


def test_patterns_choose_the_weights():
    assert [*whole_masks(Network(), ["*"], ["out.*"])] == ["a.weight", "b.weight"]
    with pytest.raises(ConfigError, match=r"\['c\.\*'\] without \[\] match none of \['a.weight', 'b.weight', 'out."):
        whole_masks(Network(), ["c.*"], [])


def test_wrong_options_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        Rounds(1.0, 0, "linear", "all", -1)
    assert len(error.value.problems) == 5
    with pytest.raises(ConfigError, match="controls: expected a number as `rewind`"):
        Rounds(0.5, 1, controls=True)


def test_what_does_not_fit_the_data_or_the_training_is_told():
    x, y = np.random.default_rng(0).standard_normal((6, 2, 5, 5)).astype(np.float32), np.arange(6) % 3
    data = autoprune.Data.from_arrays((x[:2],), (x[2:4], y[2:4]), (x[4:], y[4:]))
    with pytest.raises(ConfigError) as error:
        autoprune.prune_in_rounds(Network(), data, Rounds(0.5, 1, rewind=9), FineTune(5))
    assert [problem.split(":")[0] for problem in error.value.problems] == ["finetune", "rewind", "finetune.loss"]
    found = autoprune.prune_in_rounds(Network(), data, Rounds(0.5, 2), progress=False)
    assert found.rounds[-1].sparsity == 0.5
    assert {*found.rounds[-1].values} == {"accuracy", "loss"}
    assert found.emptied == []


def test_a_training_takes_plain_steps_as_by_hand_with_torchs_own_sgd():
    how = training()
    trained = dict(how.trained(Network(), {}, 0, 5).named_parameters())
    by_hand = trained_by_hand(how.examples, 5)
    assert all(torch.equal(trained[name], tensor) for name, tensor in by_hand.named_parameters())


def trained_by_hand(examples, steps):
    """The network that `same_weights` makes, after so many steps."""
    torch.manual_seed(0)
    network = Network().train()
    sgd = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        batch = examples.batch(step)
        torch.manual_seed(step)  # for dropout
        sgd.zero_grad()
        nn.functional.cross_entropy(network(*batch.inputs), batch.target).backward()
        sgd.step()
    return network
