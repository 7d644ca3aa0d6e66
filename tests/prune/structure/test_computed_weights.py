"""Weights that are computed from activations: modulated, mixed, generated. What the algebra allows is a unit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune


class Modulated(nn.Module):
    """StyleGAN2's convolution: a style scales the inputs of the kernel, which is brought back to unit length."""

    def __init__(self, inputs, outputs, style):
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3)), nn.Linear(style, inputs)
        self.outputs = outputs

    def forward(self, x, style):
        batch, channels, height, width = x.shape
        weight = self.weight * self.style(style).view(batch, 1, channels, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        weight = weight.view(batch * self.outputs, channels, 3, 3)
        y = F.conv2d(x.reshape(1, batch * channels, height, width), weight, padding=1, groups=batch)
        return y.view(batch, self.outputs, height, width)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.start, self.map = nn.Parameter(torch.randn(1, 6, 4, 4)), nn.Linear(5, 7)
        self.first, self.second, self.rgb = Modulated(6, 8, 7), Modulated(8, 4, 7), nn.Conv2d(4, 3, 1)

    def forward(self, z):
        style = F.leaky_relu(self.map(z))
        x = F.leaky_relu(self.first(self.start.repeat(len(z), 1, 1, 1), style))
        return self.rgb(F.leaky_relu(self.second(x, style)))


@pytest.mark.parametrize("batch", [1, 2])
def test_channels_of_modulated_convolutions_go(batch):
    torch.manual_seed(0)
    model, z = Generator(), torch.randn(batch, 5)
    structure = autoprune.find_structure(model, z)
    assert structure.frozen == ()
    assert sorted(unit.width for unit in structure.units) == [4, 6, 7, 8]
    kept = [1, 2, 5]
    small = autoprune.shrink(model, structure, {structure.units[-2].name: kept})
    assert small.first.weight.shape == (1, 3, 6, 3, 3)
    byhand = copy.deepcopy(model)  # built small from the start
    byhand.first.outputs, byhand.first.weight = 3, nn.Parameter(model.first.weight[:, kept])
    byhand.second.weight = nn.Parameter(model.second.weight[:, :, kept])
    byhand.second.style.weight = nn.Parameter(model.second.style.weight[kept])
    byhand.second.style.bias = nn.Parameter(model.second.style.bias[kept])
    torch.testing.assert_close(small(z), byhand(z))


class Routed(nn.Module):
    """CondConv: the kernel of every image is a mixture of experts' kernels."""

    def __init__(self, inputs, outputs, experts, mix):
        super().__init__()
        self.weight, self.route = nn.Parameter(torch.randn(experts, outputs, inputs, 3, 3)), nn.Linear(inputs, experts)
        self.inputs, self.outputs, self.experts, self.mix = inputs, outputs, experts, mix

    def forward(self, x):
        batch, channels, height, width = x.shape
        kernel = self.mix(self, torch.sigmoid(self.route(x.mean((2, 3)))))
        kernel = kernel.reshape(batch * self.outputs, self.inputs, 3, 3)
        y = F.conv2d(x.reshape(1, batch * channels, height, width), kernel, padding=1, groups=batch)
        return y.view(batch, self.outputs, height, width)


class Standardised(nn.Module):
    """A weight that is standardised, then scaled by a gate."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.gate = nn.Parameter(torch.randn(outputs, inputs, 3, 3)), nn.Linear(inputs, outputs)

    def forward(self, x):
        batch, _, height, width = x.shape
        kernel = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        kernel = kernel / (kernel.std((1, 2, 3), keepdim=True) + 1e-5)
        kernel = kernel[None] * self.gate(x.mean((2, 3)))[:, :, None, None, None]
        y = F.conv2d(x.reshape(1, -1, height, width), kernel.flatten(0, 1), groups=batch)
        return y.reshape(batch, -1, height - 2, width - 2)


class Depthwise(nn.Module):
    """One generated filter for every channel of every image."""

    def __init__(self, channels):
        super().__init__()
        self.generate = nn.Linear(channels, channels * 9)

    def forward(self, x):
        batch, channels, height, width = x.shape
        kernel = self.generate(x.mean((2, 3))).view(batch * channels, 1, 3, 3)
        y = F.conv2d(x.reshape(1, -1, height, width), kernel, padding=1, groups=batch * channels)
        return y.view(batch, channels, height, width)


def between(module, outputs):
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), module, nn.ReLU(), nn.Conv2d(outputs, 5, 1))


MIXTURES = {
    "one product": lambda m, r: r @ m.weight.view(m.experts, -1),
    "einsum": lambda m, r: torch.einsum("be,eoikl->boikl", r, m.weight),
    "a sum": lambda m, r: (r[:, :, None, None, None, None] * m.weight).sum(1),
}
DYNAMIC = {
    **{
        f"mixture by {name}": (lambda mix=mix: between(Routed(6, 8, 4, mix), 8), {6, 8})
        for name, mix in MIXTURES.items()
    },
    "standardised": (lambda: between(Standardised(6, 8), 8), {6, 8}),
    "depthwise": (lambda: between(Depthwise(6), 6), {6}),
}


@pytest.mark.parametrize("name", DYNAMIC)
def test_channels_of_dynamic_convolutions_go(name):
    torch.manual_seed(0)
    make, widths = DYNAMIC[name]
    model, x = make(), torch.randn(2, 3, 6, 6)
    structure = autoprune.find_structure(model, x)
    assert structure.frozen == ()
    assert widths <= {unit.width for unit in structure.units}
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, x).ok


class Hyper(nn.Module):
    """A linear layer whose weight another network makes."""

    def __init__(self, batched):
        super().__init__()
        self.enter, self.make, self.leave = nn.Linear(4, 6), nn.Linear(5, 48), nn.Linear(8, 3)
        self.inputs, self.outputs, self.batched = 6, 8, batched

    def forward(self, x, z):
        x, weight = F.relu(self.enter(x)), self.make(z)
        if self.batched:
            return self.leave(F.relu(torch.bmm(x, weight.view(-1, self.inputs, self.outputs))))
        return self.leave(F.relu(F.linear(x, weight[0].view(self.outputs, self.inputs))))


@pytest.mark.parametrize("batched", [False, True])
def test_a_generated_linear_layer_loses_inputs_and_outputs(batched):
    torch.manual_seed(0)
    model, example = Hyper(batched), (torch.randn(2, 3, 4), torch.randn(2, 5))
    structure = autoprune.find_structure(model, example)
    assert sorted(unit.width for unit in structure.units) == [6, 8]
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, example).ok


class Repeated(nn.Module):
    """Every output channel has the same kernel: no weight produces them."""

    def __init__(self):
        super().__init__()
        self.kernel, self.outputs = nn.Conv2d(3, 3, 4), 8

    def forward(self, x):
        kernel = self.kernel(x)[0].expand(self.outputs, -1, -1, -1)
        return F.conv2d(x, kernel).sum(1)


def test_what_no_weight_produces_stays_with_a_sentence_that_says_so():
    (row,) = [row for row in autoprune.find_structure(Repeated(), torch.randn(1, 3, 6, 6)).frozen if row.what == ""]
    assert "the weight of operator convolution in the top module at prune/structure" in row.reason.replace("'", "")
    assert "is computed from activations by operator convolution in 'kernel'" in row.reason
    assert "no weight produces these positions" in row.reason
