"""The parts of recoveries against torch's own and arithmetic by hand: schedule, averages, losses, augmentation."""

from __future__ import annotations

import pytest
import torch
from small_network import Network
from torch import nn
from torch.nn import functional as F

from autoprune.errors import ConfigError, DataError, PluginError, UnsupportedModel
from autoprune.measure.batch import Batch
from autoprune.train.averages import Averages, decay
from autoprune.train.optimizers import make_optimizer
from autoprune.train.recovery.augment import FlipCrop, flip_crop
from autoprune.train.recovery.features import feature_site, recording
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.schedule import rate
from autoprune.train.recovery.terms import loss_of

TARGET = torch.tensor([0, 1, 2, 3, 0, 1])


def test_the_rate_rises_linearly_and_then_is_torchs_cosine():
    assert [rate(step, 10, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    for step in range(4, 10):
        assert rate(step, 10, 4) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rate(5, 10, 0) == pytest.approx(0.5)


def test_the_warm_up_is_a_share_of_the_steps_that_leaves_one_step():
    assert [Recovery(steps=20, warmup=share).warmup_of(20) for share in (0, 0.05, 0.06, 0.9)] == [0, 1, 2, 18]
    assert Recovery(steps=1, warmup=0.5).warmup_of(1) == 0
    assert Recovery(epochs=3).steps_of(7) == 21


def test_averages_are_those_worked_out_by_hand():
    averages = Averages({"w": torch.tensor([0.0]), "n": torch.tensor(1)}, 0.15)
    averages.add({"w": torch.tensor([1.0])}, 0)  # decay 1/10: 0.9
    averages.add({"w": torch.tensor([2.0])}, 1)  # decay 0.15 instead of 2/11: 0.15 * 0.9 + 0.85 * 2
    assert averages.tensors["w"].item() == pytest.approx(1.835)
    assert "n" not in averages.tensors
    assert decay(1, 0.9) == pytest.approx(2 / 11)


def test_cross_entropy_with_smoothing_is_torchs():
    logits = torch.randn(6, 4)
    options = Recovery(steps=1, loss="cross_entropy", label_smoothing=0.1)
    expected = nn.CrossEntropyLoss(label_smoothing=0.1)(logits, TARGET)
    assert loss_of(options, logits, Batch((logits,), TARGET)).item() == pytest.approx(expected.item())


def test_distillation_is_the_weighted_sum_with_softened_classes():
    logits, dense = torch.randn(6, 4), torch.randn(6, 4)
    p, q = (x.double().div(3).softmax(1) for x in (dense, logits))  # by the definition
    kl = (p * (p / q).log()).sum(1).mean() * 9
    options = Recovery(steps=1, temperature=3.0, distill=0.25)
    expected = 0.75 * F.cross_entropy(logits, TARGET) + 0.25 * kl
    assert loss_of(options, logits, Batch((logits,), TARGET, dense)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_tokens_are_compared_with_the_next_label_and_ignored_ones_are_left_out():
    logits, dense, labels = torch.randn(2, 4, 5), torch.randn(2, 4, 5), torch.tensor([[1, 2, 3, 4], [0, 1, -100, -100]])
    batch = Batch((logits,), labels, dense)
    rows, targets = torch.cat([logits[0, :3], logits[1, :1]]), torch.tensor([2, 3, 4, 1])
    ce = loss_of(Recovery(steps=1, loss="cross_entropy"), logits, batch)
    assert ce.item() == pytest.approx(F.cross_entropy(rows, targets).item())
    kl = loss_of(Recovery(steps=1, loss="kl", temperature=1.0), logits, batch)
    p = torch.cat([dense[0, :3], dense[1, :1]]).log_softmax(1)
    assert kl.item() == pytest.approx((p.exp() * (p - rows.log_softmax(1))).sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "output", "error", "message"),
    [
        ("cross_entropy", torch.randn(6, 4), DataError, "needs labels, the examples have none. Take kl or mimic"),
        ("kl", torch.randn(6), PluginError, "expects the first tensor that a network returns to be logits"),
        ("kl", torch.randn(6, 5), PluginError, r"expected logits of the dense network's shape, \(6, 4\), got \(6, 5\)"),
        (lambda output, batch: output, torch.randn(6, 4), PluginError, "expected recover.loss to return a scalar"),
    ],
)
def test_a_loss_that_cannot_be_computed_is_a_sentence(loss, output, error, message):
    with pytest.raises(error, match=message):
        loss_of(Recovery(steps=1, loss=loss), output, Batch((output,), None, torch.randn(6, 4)))


def test_a_crop_is_a_window_of_the_image_with_black_around_it_and_half_of_the_images_are_flipped():
    images = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4).repeat(400, 1, 1, 1)
    found = FlipCrop(torch.tensor([-1.0, -2.0]), padding=1)(Batch((images, images[:, 0, 0, 0])))
    windows = [
        torch.stack([F.pad(c, (1, 1, 1, 1), value=v) for c, v in zip(image, (-1.0, -2.0), strict=True)])[
            :, y : y + 3, x : x + 4
        ]
        for image in (images[0], images[0].flip(2))
        for y in range(3)
        for x in range(3)
    ]
    seen = [next(i for i, w in enumerate(windows) if torch.equal(w, image)) for image in found.inputs[0]]
    assert set(seen) == set(range(18))
    assert 130 < sum(i >= 9 for i in seen) < 270  # seven standard errors of 400 coins
    assert torch.equal(found.inputs[1], images[:, 0, 0, 0])


def test_flip_crop_of_anything_but_images_is_refused():
    with pytest.raises(ConfigError, match=r"expected images, .* got a first input of shape \(2, 5\) and type int64"):
        flip_crop(Batch((torch.zeros(2, 5, dtype=torch.int64),)), lambda: torch.zeros(1))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.pool(self.conv(x).relu()).flatten(1))


@pytest.mark.parametrize(
    ("network", "shape", "pooled", "features"),
    [
        (Pooled(), (2, 2, 5, 5), True, lambda n, x: n.conv(x).relu()),
        (Network(), (2, 2, 5, 5), True, lambda n, x: n.b(n.bn(n.a(x)).relu()).relu()),  # a mean in the forward
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (2, 3), False, lambda n, x: n[:2](x)),
    ],
    ids=["module", "mean", "none"],
)
def test_features_are_the_input_of_the_last_layer_before_pooling(network, shape, pooled, features):
    x = torch.randn(shape)
    network.eval()
    site = feature_site(network, (x,))
    with recording(network, site) as recorded:
        network(x)
    assert site.pooled == pooled
    assert torch.equal(recorded.features, features(network, x))


def test_a_network_without_a_last_layer_cannot_be_mimicked():
    with pytest.raises(UnsupportedModel, match="expected a network with a linear layer or a convolution"):
        feature_site(nn.ReLU(), (torch.ones(1, 2),))


def test_norms_and_biases_do_not_decay():
    optimizer = make_optimizer(Network(), Recovery(steps=1, weight_decay=0.1))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(8, 2, 3, 3): 0.1, (6, 8, 3, 3): 0.1, (3, 6): 0.1, (8,): 0.0, (6,): 0.0, (3,): 0.0}
    with pytest.raises(ConfigError, match="expected a network with parameters to train"):
        make_optimizer(Network().requires_grad_(False), Recovery(steps=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either epochs or steps, got neither. Give one of them, such as epochs=10"),
        ({"epochs": 1, "steps": 2}, "got epochs=1 and steps=2"),
        ({"steps": 0}, "steps: expected a whole number from 1"),
        ({"steps": 1, "loss": "hinge"}, "loss: expected one of distillation, cross_entropy, kl, mimic, got 'hinge'"),
        ({"steps": 1, "augment": "flipcrop"}, r"did you mean 'flip_crop'\?\)\. Or give a function of \(batch\)"),
        ({"steps": 1, "lr": -1.0}, "lr: expected a number from 0 up to 1000, got -1.0"),
        ({"steps": 1, "optimizer": "adam"}, "optimizer: expected one of sgd, adamw, got 'adam'"),
        ({"steps": 1, "evaluate": 0}, "evaluate: expected a whole number from 1"),
    ],
)
def test_wrong_options_are_sentences(options, message):
    with pytest.raises(ConfigError, match=message):
        Recovery(**options)
