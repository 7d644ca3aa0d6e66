"""Rectifiers against torch's own activations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune.prune.moments.rectifier import RELU, Rectifier

X = torch.linspace(-9, 9, 37)
RECTIFIERS = {
    "relu": (F.relu, math.inf),
    "method": (lambda x: x.relu(), math.inf),
    "in place": (lambda x: x.relu_(), math.inf),
    "module": (nn.ReLU(inplace=True), math.inf),
    "relu6": (F.relu6, 6.0),
    "ReLU6": (nn.ReLU6(), 6.0),
    "ReLU6 in place": (nn.ReLU6(inplace=True), 6.0),
    "hardtanh": (nn.Hardtanh(0.0, 4.0), 4.0),
    "clamp": (lambda x: x.clamp(0, 3), 3.0),
    "clamp by names": (lambda x: torch.clamp(x, max=2.5, min=0.0), 2.5),
    "clamp from below": (lambda x: x.clamp(min=0), math.inf),
    "clamp_min": (lambda x: x.clamp_min_(0), math.inf),
}
OTHERS = {
    "hardtanh": nn.Hardtanh(),
    "from above": lambda x: x.clamp(max=6),
    "from one": lambda x: x.clamp(1, 6),
    "by tensors": lambda x: x.clamp(torch.zeros(37), torch.ones(37)),
    "never": lambda x: x.clamp(0, -1),
    "hardswish": F.hardswish,
    "leaky": F.leaky_relu,
    "sigmoid": torch.sigmoid,
}


class Seen(TorchFunctionMode):
    """Keeps what calls of torch's Python interface are."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.found.append(Rectifier.of(getattr(func, "__name__", ""), args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def rectifiers_of(function):
    with Seen() as seen:
        output = function(X.clone())
    return [one for one in seen.found if one is not None], output


@pytest.mark.parametrize(("function", "ceiling"), RECTIFIERS.values(), ids=RECTIFIERS)
def test_every_form_of_a_rectifier_is_recognised_and_computes_the_same(function, ceiling):
    found, output = rectifiers_of(function)
    assert found == [Rectifier(ceiling)]
    assert torch.equal(found[0](X), output)
    moved = (found[0](X + 1e-2) - found[0](X - 1e-2)) / 2e-2
    inside = found[0].passes(X) & (X.abs() > 0.1) & ((X - ceiling).abs() > 0.1)
    torch.testing.assert_close(moved[inside], torch.ones(int(inside.sum())), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS)
def test_other_functions_are_no_rectifiers(function):
    assert not rectifiers_of(function)[0]


@pytest.mark.parametrize("rectifier", [RELU, Rectifier(6.0)])
def test_a_lenient_target_differs_only_where_the_rectifier_makes_the_same_of_it(rectifier):
    targets, fitted = torch.meshgrid(X, X, indexing="ij")
    lenient = rectifier.lenient(targets, fitted)
    torch.testing.assert_close(rectifier(lenient), rectifier(targets))
    same = rectifier(targets) == rectifier(fitted)
    assert torch.equal(lenient[same], fitted[same])
