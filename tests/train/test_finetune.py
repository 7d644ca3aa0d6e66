"""Short fine-tunes: steps by hand, the same bits however a network got there, zeros, and trainings that go wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_network import SPACE, A, B, Network
from torch import nn

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.bank.weight_units import sparse_units, sparse_weights
from autoprune.prune.bank.weights import make_weight_bank
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.structure.trace import trace
from autoprune.train.examples import STATISTICS_EXAMPLES, TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.learner import FIRST
from autoprune.train.trainer import FineTuning, Trainer

PLAN = FineTune(steps=12, lr=0.05, loss="cross_entropy")


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(10, 2, 5, 5, generator=generator) for _ in range(4)]
    bounds = torch.tensor([-0.06, 0.06])
    return [Batch((x,), torch.bucketize(x.mean((1, 2, 3)), bounds)) for x in inputs]


def inputs(seed):
    return [batch.inputs for batch in batches(seed)]


@pytest.fixture
def model():
    network = Network()
    recalibrate(network, inputs(5))
    return network.eval()


@pytest.fixture
def scorer(model):
    bank = make_bank(model, trace(model, inputs(0)[0]), SPACE.units, obs, inputs(1))
    select, train = (with_dense_outputs(model, batches(seed)) for seed in (2, 3))
    return Scorer(bank, SPACE, inputs(1), select, classification, training=FineTuning(PLAN, TrainingSet.of(train)))


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def one_number(weight=1.0):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, weight)
    return layer


def doubling(output=3.0):
    """Inputs 1 of which the output is to be 3, all alike: eight to train on in batches of four, two held out."""
    batch = Batch((torch.ones(5, 1),), torch.zeros(5), torch.full((5, 1), output))
    return TrainingSet.of([batch, batch], size=4)


def learner_of(network, plan, examples=None):
    return Trainer(plan, doubling() if examples is None else examples, 0).learner(network)


def test_two_steps_on_one_weight_are_those_worked_out_by_hand():
    plan = FineTune(steps=2, lr=0.1, momentum=0.5, weight_decay=0.2, loss="mse")
    learner = learner_of(one_number(1.0), plan)
    # gradient 2 (w - 3) + 0.2 w: -3.8 at 1, so w = 1.38; then -2.964, with half of -3.8 -4.864, so w = 1.8664
    learner.train(1)
    assert learner.best().weight.item() == pytest.approx(1.38)
    learner.train(2)
    assert learner.best().weight.item() == pytest.approx(1.8664)


def test_a_rate_that_is_too_high_is_lowered_until_the_loss_on_held_out_examples_falls():
    plan = FineTune(steps=100, lr=4.0, momentum=0.0, loss="mse")
    learner = learner_of(one_number(1.0), plan)
    learner.train(FIRST)  # a step multiplies the error by 1 - 2 lr, so that a rate of 4 diverges
    assert learner.best().weight.item() == 1.0
    assert learner.lr == pytest.approx(4 / 3)
    # ten steps of a rate that rises to 4 / 3 multiply it by 0.00037, and so by less than 1 on average
    learner.train(2 * FIRST)
    assert learner.lr == pytest.approx(4 / 3)
    assert abs(learner.best().weight.item() - 3) < 0.1
    learner.train(100)
    assert learner.best().weight.item() == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("lr", [1e-3, 1.0, 1e30])
def test_no_training_is_worse_on_held_out_examples_than_none(model, lr):
    examples = TrainingSet.of(with_dense_outputs(model, batches(3)))
    plan = FineTune(steps=60, lr=lr)
    network = Network().eval()
    _, held = examples.held_out()
    with torch.no_grad():
        losses = [classification(one, held, report=["kl"])["kl"] for one in (network, model)]
        for steps in (1, 25, 60):
            learner = learner_of(copy_model(network), plan, examples)
            learner.train(steps)
            trained = classification(learner.best(), held, report=["kl"])["kl"]
            assert losses[1] < trained <= losses[0]


def test_held_out_examples_are_a_fifth_and_no_step_sees_them():
    numbers = torch.arange(40.0)[:, None]
    rest, held = TrainingSet.of([Batch((numbers,), torch.zeros(40))], size=7).held_out()
    apart = torch.cat([batch.inputs[0] for batch in held]).flatten().tolist()
    trained = torch.cat([rest.batch(step).inputs[0] for step in range(rest.per_epoch * 6)]).flatten().tolist()
    assert len(apart) == 8
    assert {*apart} | {*trained} == {*numbers.flatten().tolist()}
    assert not {*apart} & {*trained}
    with pytest.raises(DataError, match="expected at least 5 training examples, of which one in 5 is held out"):
        TrainingSet.of([Batch((numbers[:4],), torch.zeros(4))]).held_out()


def test_a_loss_of_ones_own_gets_output_and_batch():
    plan = FineTune(1, 0.1, momentum=0.0, loss=lambda output, batch: (output * batch.inputs[0]).sum())
    learner = learner_of(one_number(1.0), plan)
    learner.train(1)
    assert learner.network.weight.item() == pytest.approx(1.0 - 0.1 * 4)


@pytest.mark.parametrize("loss", ["kl", "mse", "cross_entropy"])
def test_a_loss_is_the_mean_of_what_the_fitness_of_its_name_measures(model, loss):
    batch = with_dense_outputs(model, batches(3))[0]._replace(dense=torch.randn(10, 3))
    name = {"cross_entropy": "loss"}.get(loss, loss)
    with torch.no_grad():
        measured = classification(model, [batch], report=[name])[name]
    assert FineTune(1, loss=loss).loss_of(model(*batch.inputs), batch).item() == pytest.approx(measured)


@pytest.mark.parametrize(("fidelity", "steps"), [(1.0, 9), (1 / 3, 3), (1 / 9, 1), (0.5, 5), (1e-6, 1)])
def test_a_fidelity_is_a_share_of_the_steps_rounded_up(fidelity, steps):
    assert FineTune(9).steps_at(fidelity) == steps


def test_every_pass_has_each_example_once_in_another_order_and_leaves_out_the_rest():
    numbers = torch.arange(11.0)[:, None]
    examples = TrainingSet.of([Batch((numbers[:4],), torch.zeros(4)), Batch((numbers[4:],), torch.zeros(7))])
    assert (examples.size, len(examples.batch(0).inputs[0])) == (7, 7)
    small = replace(examples, size=3)
    passes = [torch.cat([small.batch(3 * p + i).inputs[0][:, 0] for i in range(3)]).tolist() for p in range(2)]
    assert [len(set(seen)) for seen in passes] == [9, 9]
    assert passes[0] != passes[1]
    assert torch.equal(small.batch(4).inputs[0], replace(examples, size=3).batch(4).inputs[0])


@pytest.mark.parametrize("kept", [1, 0])
def test_a_network_that_goes_on_is_the_one_trained_from_the_start_bit_by_bit(scorer, kept):
    scorer = scorer.with_scoring(reuse_gib=kept)
    going = [scorer.score(Candidate(A.levels, f, since=s)) for f, s in ((0.25, 0), (0.5, 0.25), (1.0, 0.5))]
    other = replace(scorer)  # nothing kept
    at_once = other.score(A)
    assert [e.steps for e in going] == [3, 6, 12]
    assert going[-1].values == at_once.values
    assert going[0].values == other.score(Candidate(A.levels, 0.25)).values != at_once.values
    subnet = scorer.subnet(A)
    assert same(scorer.trained(subnet, 12), other.trained(subnet, 12))


def test_what_is_scored_in_between_changes_nothing(scorer):
    alone = replace(scorer).score(A).values
    scorer.score(Candidate(A.levels, 0.25))
    scorer.score(B)
    torch.rand(7)
    assert scorer.score(A).values == alone


def test_only_the_networks_used_last_are_kept_within_the_bytes():
    made = []

    def begin(name):
        made.append(name)
        return one_number()

    plan = replace(PLAN, loss="mse")
    size = 3 * 4  # a weight, the best one and the momentum
    trainer = Trainer(plan, doubling(), keep_bytes=2 * size)
    for name in "abaca":
        trainer.trained(name, lambda name=name: begin(name), [], 2)
    assert made == ["a", "b", "c"]
    trainer.trained("b", lambda: begin("b"), [], 3)
    trainer.trained("a", lambda: begin("a"), [], 3)
    trainer.trained("a", lambda: begin("a"), [], 1)  # fewer steps than it has
    assert made == ["a", "b", "c", "b", "a"]


def test_all_selection_examples_are_measured_at_every_fidelity(scorer):
    seen = []

    def count(network, batches):
        seen.append(sum(batch.examples for batch in batches))
        return float(seen[-1])

    scorer = replace(scorer, fitness=count)
    for fidelity in (0.1, 0.5, 1.0):
        evaluation = scorer.score(Candidate(A.levels, fidelity))
        assert (evaluation.ok, evaluation.examples) == (True, 0)
    assert seen == [40, 40, 40]


def test_the_dense_network_is_not_trained(scorer):
    evaluation = scorer.score(SPACE.dense)
    assert evaluation.steps == 0
    assert evaluation.values == replace(scorer, training=None).score(SPACE.dense).values
    assert evaluation.values["kl"] == pytest.approx(0, abs=1e-6)


def test_the_users_model_is_untouched_and_random_states_are_put_back(model, scorer):
    before, state = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    assert scorer.score(A).ok
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())


def test_batch_norms_of_a_trained_network_are_those_of_the_first_training_examples(scorer):
    network = scorer.trained(scorer.subnet(A), 5)
    again = scorer.trained(scorer.subnet(A), 5)
    rest, _ = scorer.training.examples.held_out()
    recalibrate(again, [rest.batch(step).inputs for step in range(rest.per_epoch)])
    assert same(network, again)
    assert STATISTICS_EXAMPLES >= 40


def test_batch_norms_keep_their_statistics_after_a_training_that_did_not_help(scorer):
    training = FineTuning(replace(PLAN, lr=1e4, steps=60), scorer.training.examples)
    network, trained = scorer.build(scorer.subnet(A)), replace(scorer, training=training).trained(scorer.subnet(A), 60)
    assert torch.equal(network.bn.running_mean, trained.bn.running_mean)
    assert torch.equal(network.bn.running_var, trained.bn.running_var)


def test_a_fitness_that_spoils_the_network_spoils_no_later_step(scorer):
    def destructive(network, batches):
        values = classification(network, batches)
        for tensor in network.parameters():
            tensor.zero_()
        return values

    spoiling = replace(scorer, fitness=destructive)
    spoiling.score(Candidate(A.levels, 0.25))
    assert spoiling.score(A).values == replace(scorer).score(A).values


def test_parameters_that_need_no_gradient_stay_as_they_are(model, scorer):
    scorer.bank.model.a.weight.requires_grad_(False)
    network = scorer.trained(scorer.subnet(A), 5)
    untrained = scorer.bank.build(scorer.subnet(A))
    assert torch.equal(network.a.weight, untrained.a.weight)
    assert not torch.equal(network.b.weight, untrained.b.weight)


@pytest.mark.parametrize("kind", ["weights", "pattern"])
def test_zeros_stay_zeros(model, kind):
    structure = trace(model, inputs(0)[0])
    rules = [LevelRule("b.weight", (0.5,), kind, group=8)]
    weights = sparse_weights(model, structure, rules)
    space = build_space((*structure.units, *sparse_units(model, weights)), rules)
    bank = make_bank(model, structure, (), obs, inputs(1))
    sparse = make_weight_bank(model, structure, {name: weights[name] for name in space.units}, "magnitude", inputs(1))
    examples = TrainingSet.of(batches(3))
    bank = bank.with_weights(sparse)
    scorer = Scorer(bank, space, inputs(1), batches(2), classification, training=FineTuning(PLAN, examples))
    subnet = scorer.subnet(space.smallest)
    before, after = scorer.build(subnet).b.weight, scorer.trained(subnet, 12).b.weight
    assert torch.equal(before == 0, after == 0)
    assert int((after == 0).sum()) == before.numel() // 2
    assert not torch.equal(before, after)


def test_a_network_without_a_finite_loss_is_a_failed_evaluation_with_its_cause(scorer):
    def infinite(output, batch):
        return output.sum() * math.inf

    training = FineTuning(replace(PLAN, loss=infinite), scorer.training.examples)
    evaluation = replace(scorer, training=training).score(A)
    assert evaluation.status == "failed"
    assert not evaluation.values
    assert "TrainingDiverged: expected a network with a finite loss before fine-tuning, got" in evaluation.cause


def test_buffers_may_hold_infinities():
    layer = one_number()
    layer.register_buffer("mask", torch.tensor([-math.inf]))
    trainer = Trainer(FineTune(1, loss="mse"), doubling(), 0)
    assert trainer.trained("a", lambda: layer, [], 1).mask == -math.inf


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 0}, "finetune.steps: expected at least 1, got 0."),
        ({"lr": 0.0}, "finetune.lr: expected a finite number above 0, got 0.0."),
        ({"lr": -1.0}, "finetune.lr: expected a finite number above 0, got -1.0."),
        ({"lr": math.nan}, "finetune.lr: expected a finite number above 0, got nan."),
        ({"lr": math.inf}, "finetune.lr: expected a finite number above 0, got inf."),
        ({"momentum": 1.0}, "finetune.momentum: expected at least 0 and below 1, got 1.0."),
        ({"weight_decay": -0.1}, "finetune.weight_decay: expected a finite number of at least 0, got -0.1."),
        ({"loss": "hinge"}, "finetune.loss: expected one of kl, mse, cross_entropy or a function"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(wrong, sentence):
    with pytest.raises(ConfigError) as caught:
        FineTune(**{"steps": 10, **wrong})
    assert str(caught.value).startswith(sentence)


def test_all_mistakes_are_told_together():
    with pytest.raises(ConfigError) as caught:
        FineTune(0, lr=0.0, loss="hinge")
    assert len(caught.value.problems) == 3


def test_a_loss_of_classes_wants_logits():
    with pytest.raises(PluginError, match=r"cross_entropy expects .* logits in train mode, got \(2, 3, 4\)"):
        FineTune(1, loss="cross_entropy").loss_of(torch.zeros(2, 3, 4), batches(0)[0])


def test_a_loss_of_ones_own_must_have_a_gradient():
    with pytest.raises(PluginError, match="finetune.loss to return a scalar tensor with a gradient, .* got 1.0"):
        FineTune(1, loss=lambda output, batch: 1.0).loss_of(torch.zeros(2, 3), batches(0)[0])


def test_batches_that_are_not_alike_are_refused():
    with pytest.raises(DataError, match="expected batches that can be joined"):
        TrainingSet.of([Batch((torch.zeros(2, 3),)), Batch((torch.zeros(2, 4),))])
