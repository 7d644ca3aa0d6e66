"""The loop of recoveries: steps by hand, resumption to the bit, the best network, zeros, and failures."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from small_network import Network
from torch import nn

from autoprune.errors import ConfigError, DeviceMemoryError, PluginError, TrainingDiverged
from autoprune.measure.batch import Batch
from autoprune.train.examples import TrainingSet
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.outcome import Judged
from autoprune.train.recovery.processes import Processes
from autoprune.train.zeros import sparse_names

ALL = Recovery(
    steps=7,
    lr=0.05,
    ema=0.5,
    augment="flip_crop",
    label_smoothing=0.1,
    evaluate=3,
    clip=1.0,
    accumulate=2,
    batch_size=8,
)


def examples(size=8, labels=True):
    x = torch.randn(20, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    return TrainingSet(Batch((x,), torch.arange(20) % 3 if labels else None), size)


def size_of(network):
    """A judge that likes small weights, which training with weight decay makes."""
    total = sum(p.square().sum().item() for p in network.parameters())
    return Judged((total,), {"size": total})


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def dense():
    return Network().eval()


@pytest.fixture
def small():
    return Network().eval()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_are_those_of_a_loop_with_torchs_own_parts(small, optimizer):
    small.drop.p = 0.0
    options = Recovery(
        epochs=2, loss="cross_entropy", optimizer=optimizer, lr=0.1, warmup=0.0, momentum=0.8, weight_decay=0.01
    )
    data = examples()
    found = Recovering(small, None, options, data).run().network
    net = copy.deepcopy(small).train()
    groups = [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in net.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    own = torch.optim.SGD(groups, 0.1, 0.8) if optimizer == "sgd" else torch.optim.AdamW(groups, 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(own, T_max=4)
    for step in range(4):
        batch = data.batch(step)
        own.zero_grad()
        nn.functional.cross_entropy(net(*batch.inputs), batch.target).backward()
        own.step()
        schedule.step()
    for name, tensor in net.state_dict().items():
        assert torch.allclose(found.state_dict()[name], tensor, atol=1e-6), name


def test_two_parts_of_a_batch_give_the_gradient_of_the_whole(small):
    small.bn.eval().train = lambda mode=True: small.bn  # statistics of a part would differ
    small.drop.p = 0.0
    options = Recovery(steps=2, loss="cross_entropy", lr=0.1)
    whole, parts = (Recovering(small, None, replace(options, accumulate=n), examples()).run().network for n in (1, 3))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_a_rate_of_zero_changes_no_parameter(small, dense):
    outcome = Recovering(small, dense, replace(ALL, lr=0.0), examples()).run()
    assert all(torch.equal(a, b) for a, b in zip(outcome.network.parameters(), small.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_that_is_continued_from_any_step_ends_with_the_same_bits(small, dense, optimizer):
    options = replace(ALL, optimizer=optimizer)
    states = []

    def keep(loop):
        saved = loop.state()
        states.append(replace(saved, tensors={name: x.detach().clone() for name, x in saved.tensors.items()}))

    def make():
        return Recovering(small, dense, options, examples())

    last = make()
    whole = last.run(size_of, keep)
    assert len(states) == 8
    for saved in (states[0], states[2], states[5]):
        torch.rand(5)  # random numbers of others
        loop = make()
        loop.load(saved)
        again = loop.run(size_of)
        assert same(again.network, whole.network)
        assert again.history == whole.history
        assert all(torch.equal(x, last.state().tensors[name]) for name, x in loop.state().tensors.items())


def test_the_caller_keeps_its_networks(small, dense):
    before = [copy.deepcopy(n.state_dict()) for n in (small, dense)]
    Recovering(small, dense, ALL, examples()).run(size_of)
    for network, state in zip((small, dense), before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
        assert not any(module.training for module in network.modules())


def test_the_best_network_is_returned_and_measured_at_the_start_every_so_often_and_at_the_end(small, dense):
    seen = []

    def judge(network):
        seen.append(copy.deepcopy(network))
        loss = [3.0, 1.0, 2.0, 1.0][len(seen) - 1]
        return Judged((loss,), {"own": loss})

    outcome = Recovering(small, dense, ALL, examples()).run(judge)
    assert [point.step for point in outcome.history] == [0, 3, 6, 7]
    assert outcome.history[0].loss is None
    assert outcome.best.step == 3
    assert same(outcome.network, seen[1])
    assert "that of step 3 (own 1)" in outcome.remark


def test_a_network_that_only_gets_worse_is_returned_as_it_was_and_the_remark_says_so(small, dense):
    losses = iter([1.0, 1.0, 2.0, 1.0])
    outcome = Recovering(small, dense, ALL, examples()).run(lambda network: Judged((next(losses),), {}))
    assert same(outcome.network, small)
    assert "no network in training was better on the selection set than the one it started from" in outcome.remark


def test_mimicking_needs_no_labels_trains_no_classifier_and_approaches_the_features(small, dense):
    options = Recovery(steps=40, loss="mimic", lr=0.1, weight_decay=0.0)
    data = examples(20, labels=False)
    outcome = Recovering(small, dense, options, data).run()
    assert torch.equal(outcome.network.out.weight, small.out.weight)

    def features(network):
        return network.b(network.bn(network.a(data.examples.inputs[0])).relu()).relu()

    with torch.no_grad():
        start, end = ((features(n) - features(dense)).square().mean() for n in (small, outcome.network))
    assert end < 0.7 * start


def test_features_that_lost_positions_are_compared_at_the_kept_ones():
    kept = [0, 2]
    dense = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
    small = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2))
    with torch.no_grad():
        small[0].weight.copy_(dense[0].weight[kept])
    data = TrainingSet(Batch((torch.randn(6, 3),)), 6)
    loop = Recovering(small, dense, Recovery(steps=1, loss="mimic"), data, kept={"1.weight": {1: torch.tensor(kept)}})
    assert loop._loss(data.batch(0)).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(PluginError, match=r"expected features of the dense network's shape, \(6, 4\), before '1'"):
        Recovering(small, dense, Recovery(steps=1, loss="mimic"), data).run()


def test_zeros_of_sparse_weights_stay_zeros(small, dense):
    with torch.no_grad():
        small.b.weight[small.b.weight.abs() < 0.05] = 0
    assert sparse_names(small) == ("b.weight",)
    trained = Recovering(small, dense, ALL, examples(), sparse=["b.weight"]).run().network
    assert torch.equal(trained.b.weight == 0, small.b.weight == 0)
    assert not torch.equal(trained.b.weight, small.b.weight)


def test_a_training_that_diverges_says_the_step_and_keeps_the_best_network(small, dense):
    def loss(output, batch):
        factor = torch.nan if len(calls) == 4 else 1.0
        calls.append(1)
        return output.square().mean() * factor

    calls = []
    options = replace(ALL, loss=loss, accumulate=1)
    outcome = Recovering(small, dense, options, examples()).run(size_of)
    assert outcome.stopped == "the training ended at step 5 of 7 with a loss of nan. Lower recover.lr."
    assert outcome.best == min(outcome.history, key=lambda point: point.losses)
    calls = []
    with pytest.raises(TrainingDiverged, match="ended at step 5 of 7"):
        Recovering(small, dense, options, examples()).run()


class Small(Network):
    """A network whose device has no memory for more than `most` examples."""

    most = 3

    def forward(self, x):
        out = super().forward(x)
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate")
        return out


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_divided_until_it_fits(dense):
    network = Small()
    loop = Recovering(network, dense, replace(ALL, accumulate=1), examples())
    ready = Recovering(network, dense, replace(ALL, accumulate=4), examples())
    assert same(loop.run().network, ready.run().network)  # batch norms have not seen the attempts
    assert loop.accumulate == 4
    network.most = 0
    with pytest.raises(DeviceMemoryError, match="recovery: expected enough memory for batches of 1 examples"):
        Recovering(network, dense, ALL, examples()).run()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_precisions_train_float32_weights_in_passes_of_their_own(small, dense, precision):
    def loss(output, batch):
        assert {output.dtype, batch.dense.dtype} == {getattr(torch, precision)}
        return output.float().square().mean()

    trained = Recovering(small, dense, replace(ALL, precision=precision, loss=loss), examples()).run().network
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert not torch.equal(trained.a.weight, small.a.weight)


def test_an_augmentation_of_ones_own_gets_and_returns_a_batch(small, dense):
    seen = []

    def double(batch):
        seen.append(batch.inputs[0])
        return batch._replace(inputs=(2 * batch.inputs[0],))

    def loss(output, batch):
        assert torch.equal(batch.inputs[0], 2 * seen[-1])
        assert torch.equal(batch.dense, dense(batch.inputs[0]))
        return output.mean()

    Recovering(small, dense, replace(ALL, augment=double, loss=loss, accumulate=1), examples()).run()
    with pytest.raises(PluginError, match="expected augment to return an autoprune.Batch of 8 examples, got Tensor"):
        Recovering(small, dense, replace(ALL, augment=lambda batch: batch.inputs[0]), examples()).run()


def test_a_loss_that_compares_needs_the_dense_network(small):
    with pytest.raises(ConfigError, match="loss: mimic compares with the dense network, got none"):
        Recovering(small, None, replace(ALL, loss="mimic"), examples())


class Half(Processes):
    """One of two processes, whose sums are left to the test."""

    def __init__(self, rank):
        super().__init__()
        self.count, self.rank = 2, rank

    def add(self, tensors):
        pass

    def average(self, tensors):
        pass


def test_the_gradients_of_two_processes_add_up_to_those_of_one(small):
    small.bn.eval().train = lambda mode=True: small.bn  # statistics of a share would differ
    small.drop.p = 0.0
    options, data = Recovery(steps=1, loss="cross_entropy"), examples(7)
    loops = [Recovering(small, None, options, data, processes=own) for own in (Processes(), Half(0), Half(1))]
    losses = [loop._differentiate(loop.processes.share(data.batch(0)), 7) for loop in loops]
    whole, one, other = ([p.grad for p in loop._trained.parameters()] for loop in loops)
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-5)
    assert all(torch.allclose(a, b + c, atol=1e-6) for a, b, c in zip(whole, one, other, strict=True))
    with pytest.raises(ConfigError, match="expected at least one example for each of the 2 processes, got 1"):
        Half(0).share(Batch((torch.ones(1, 2),)))
