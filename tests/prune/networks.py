"""Small networks of many patterns, a counter that knows nothing of the library, and random kept positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SIZE = 6  # pixels a side of what every pattern sees


class Plain(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.width = 6

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, c, 3, padding=1), nn.BatchNorm2d(c)
        self.width = c

    def forward(self, x):
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class PaddedShortcut(nn.Module):
    """He et al.'s option A: zeros beside the old channels, every second pixel; blown up again to keep the size."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, c + 4, 3, 1, 1)
        self.width = c + 4

    def forward(self, x):
        y = self.conv2(F.relu(self.bn1(self.conv1(x)))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return F.interpolate(F.relu(y), scale_factor=2)


class Depthwise(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c, c, 3, padding=1, groups=c), nn.BatchNorm2d(c)
        self.width = c

    def forward(self, x):
        return F.relu6(self.bn(self.conv(x)))


class DepthwiseMultiplier(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, 3 * c, 3, padding=1, groups=c)
        self.reduce = nn.Conv2d(3 * c, 4, 1)
        self.width = 4

    def forward(self, x):
        return F.gelu(self.reduce(F.silu(self.conv(x))))


class Grouped(nn.Module):
    """A grouped convolution with as many outputs as inputs, then one with more."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(c, 8, 1)
        self.same = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.more = nn.Conv2d(8, 12, 1, groups=4)
        self.width = 12

    def forward(self, x):
        return F.relu(self.more(F.relu(self.same(F.relu(self.first(x))))))


class Concatenated(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(c, 3, 3, padding=1), nn.Conv2d(c, 4, 1)
        self.width = c + 7

    def forward(self, x):
        return torch.cat([self.left(x).tanh(), x, self.right(x).sigmoid()], dim=1)


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Conv2d(c, 3, 1), nn.Conv2d(3, c, 1)
        self.width = c

    def forward(self, x):
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(self.pool(x)))))


class Transposed(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.bn = nn.BatchNorm2d(6)
        self.mix = nn.ConvTranspose2d(6, 5, 3, padding=1)
        self.width = 5

    def forward(self, x):
        return self.mix(F.relu(self.bn(self.up(F.relu(self.conv(x))))))


class Shared(nn.Module):
    """One convolution used twice in a row."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(c, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.width = 4

    def forward(self, x):
        return F.relu(self.conv(F.relu(self.conv(self.enter(x)))))


class Prelu(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.slope = nn.Conv2d(c, 5, 3, padding=1), nn.PReLU(5)
        self.width = 5

    def forward(self, x):
        return self.slope(self.conv(x))


class Bottleneck(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.bn1 = nn.Conv2d(c, 3, 1, bias=False), nn.BatchNorm2d(3)
        self.conv, self.bn2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.up, self.bn3 = nn.Conv2d(3, c, 1, bias=False), nn.BatchNorm2d(c)
        self.width = c

    def forward(self, x):
        y = F.hardswish(self.bn1(self.down(x)), inplace=True)
        return x + self.bn3(self.up(F.hardswish(self.bn2(self.conv(y)))))


class Shuffled(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(c, 8, 1), nn.Conv2d(8, 6, 1)
        self.width = 6

    def forward(self, x):
        b, _, h, w = (y := self.conv(x)).shape
        return self.after(y.view(b, 2, -1, h, w).transpose(1, 2).reshape(b, -1, h, w))


class Unknown(nn.Module):
    """Operators without a rule between two convolutions."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, 4, 1)
        self.width = 4

    def forward(self, x):
        return self.conv(x.cumsum(1).flip(1)).roll(1, 2)


class Pooled(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.width = c

    def forward(self, x):
        return F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear") + F.avg_pool2d(x, 3, 1, 1)


class PooledHead(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c, 3)

    def forward(self, x):
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class FlatHead(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.hidden, self.bn, self.out = nn.Linear(c * SIZE * SIZE, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)

    def forward(self, x):
        return self.out(F.relu(self.bn(self.hidden(torch.flatten(x, 1)))))


class MeanHead(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, 3, 1)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


PATTERNS = (
    Plain,
    Residual,
    PaddedShortcut,
    Depthwise,
    DepthwiseMultiplier,
    Grouped,
    Concatenated,
    Gated,
    Transposed,
    Shared,
    Prelu,
    Bottleneck,
    Shuffled,
    Unknown,
    Pooled,
)
HEADS = (PooledHead, FlatHead, MeanHead)


def network(patterns, head, seed=0):
    """A stem, patterns one after the other and a head; random weights and batch norm statistics."""
    torch.manual_seed(seed)
    stages = [nn.Conv2d(3, 4, 3, padding=1)]
    width = 4
    for pattern in patterns:
        stages.append(pattern(width))
        width = stages[-1].width
    model = nn.Sequential(*stages, head(width)).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def images(count=2, seed=1):
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def some_positions(structure, seed):
    """Random positions of every unit, from one to all."""
    rng = np.random.default_rng(seed)
    return {u.name: np.sort(rng.permutation(u.width)[: rng.integers(1, u.width + 1)]) for u in structure.units}


def counted_macs(model, example):
    """Multiply-accumulates of one forward pass, counted while it runs from the sizes of tensors alone."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        summed = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += summed.numel() * module.weight[0].numel()

    kinds = nn.Conv2d | nn.Linear | nn.ConvTranspose2d
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model(example)
    for hook in hooks:
        hook.remove()
    return total


def counted_params(model):
    return sum(parameter.numel() for parameter in model.parameters())


def fingerprint(model):
    """Everything about a model that must not change: tensors bit by bit, modes, hooks, and which tensors there are."""
    tensors = {name: (id(t), t.detach().clone()) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return tensors, modes, hooks


def same(before, after):
    """Whether two fingerprints are equal, bit by bit."""
    (left, *rest), (right, *others) = before, after
    alike = all(left[n][0] == right[n][0] and torch.equal(left[n][1], right[n][1]) for n in left)
    return left.keys() == right.keys() and alike and rest == others
