"""Toy networks, one for every pattern that breaks naive structured pruning, with what must be found in each.

What may be removed is what disappears by slicing tensors and by setting integers that modules keep, the forward's code
left alone. Widths differ within a network, so that a mix-up shows; sequences and images are small: milliseconds each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils._pytree import tree_leaves

SIZE = 8  # pixels a side of an image
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
Made = tuple[nn.Module, Any]  # a model and its example inputs


@dataclass(frozen=True)
class Toy:
    """How a toy is made and what a structure found on it must say.

    `units` maps kinds to widths that must be among the units, one unit each; "any" leaves the kind open. `frozen` is a
    pattern that the reason of some frozen part must match, `largest_frozen` the largest share of MACs no unit touches.
    `layers_only` says that all products are made by convolution and linear modules, each called as a module.
    """

    make: Callable[[], Made]
    units: Mapping[str, Sequence[int]]
    frozen: str = ""
    largest_frozen: float = 0.0
    layers_only: bool = True


TOYS: dict[str, Toy] = {}


def toy(
    *, frozen: str = "", largest_frozen: float = 0.0, layers_only: bool = True, **units: Sequence[int]
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Registers a function that makes a toy; the model comes out seeded, in eval mode, its norms randomised."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        @wraps(make)
        def seeded() -> Made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model, example = make()
                return randomised(model.eval()), example

        TOYS[make.__name__] = Toy(seeded, units, frozen, largest_frozen, layers_only)
        return seeded

    return register


def randomised(model: nn.Module) -> nn.Module:
    """The model with scale, shift and statistics of every normalisation uniform in 0.5..1.5."""
    for module in model.modules():
        if isinstance(module, (*NORMS, FrozenBatchNorm)):
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def outputs(model: nn.Module, example: Any) -> list[torch.Tensor]:
    """The tensors a model returns on example inputs: a tensor, a tuple of positional or a dict of named ones."""
    args = () if isinstance(example, dict) else example if isinstance(example, tuple) else (example,)
    with torch.no_grad():
        returned = model(*args, **(example if isinstance(example, dict) else {}))
    return [leaf for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor)]


class Net(nn.Module):
    """Parts by name, and a forward written as a function of the network and its inputs."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


def image() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE)


def sequence() -> torch.Tensor:
    """(2, 7, 5): two sequences of seven vectors."""
    return torch.randn(2, 7, 5)


def words() -> torch.Tensor:
    """(2, 7) indices into a vocabulary of 30."""
    return torch.randint(0, 30, (2, 7))


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU())


def pooled(inputs: int) -> nn.Sequential:
    """Five classes from the mean of a feature map."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 5))


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


@toy(channels=[8, 12], neurons=[24])
def plain() -> Made:
    body = chain(conv_bn(3, 8), conv_bn(8, 12), nn.MaxPool2d(2), nn.Flatten())
    return chain(body, nn.Linear(12 * 16, 24), nn.ReLU(), nn.Linear(24, 5)), image()


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(width, inner), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += x
        return F.relu(y, inplace=True)


@toy(channels=[8, 12, 24], branches=[1, 1])
def residual() -> Made:
    return chain(conv_bn(3, 8), Residual(8, 12), Residual(8, 24), pooled(8)), image()


@toy(channels=[8, 12])
def option_a() -> Made:
    """The shortcut takes every second pixel and pads four channels of zeros on both sides: those eight must stay."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        y = net.bn(net.conv2(net.conv1(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return net.head(F.relu(y))

    parts = {"conv1": conv_bn(8, 12, stride=2), "conv2": conv(12, 16), "bn": nn.BatchNorm2d(16)}
    return Net(run, stem=conv_bn(3, 8), **parts, head=pooled(16)), image()


@toy(channels=[12, 24])
def depthwise() -> Made:
    return chain(conv_bn(3, 12), conv_bn(12, 12, groups=12), conv_bn(12, 24, 1), pooled(24)), image()


@toy(channels=[8, 12], any=[3])
def depthwise_multiplier() -> Made:
    return chain(conv_bn(3, 8), conv_bn(8, 24, groups=8), conv_bn(24, 12, 1), pooled(12)), image()


class MixedConv(nn.Module):
    """MixNet: pieces of stored sizes, each with a depthwise kernel of its own."""

    def __init__(self, splits: Sequence[int], kernels: Sequence[int]) -> None:
        super().__init__()
        self.splits = list(splits)
        self.convs = nn.ModuleList(conv(n, n, k, groups=n) for n, k in zip(splits, kernels, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(x, self.splits, dim=1)
        return torch.cat([layer(piece) for layer, piece in zip(self.convs, pieces, strict=True)], dim=1)


@toy(channels=[12, 8, 24])
def mixed_kernel_split() -> Made:
    mixed = chain(MixedConv((12, 8), (3, 5)), nn.BatchNorm2d(20), nn.ReLU())
    return chain(conv_bn(3, 20), mixed, conv_bn(20, 24, 1), pooled(24)), image()


@toy(channels=[4, 4, 8], any=[3])
def grouped_even() -> Made:
    """Twelve channels in three groups: a position leaves all three, or a group leaves whole."""
    return chain(conv_bn(3, 12), conv_bn(12, 12, groups=3), conv_bn(12, 8, 1), pooled(8)), image()


@toy(channels=[3, 6, 8], any=[4])
def grouped_uneven() -> Made:
    return chain(conv_bn(3, 12), conv_bn(12, 24, groups=4), conv_bn(24, 8, 1), pooled(8)), image()


@toy(channels=[12, 4])
def squeeze_excite() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        scale = net.excite(F.relu(net.squeeze(x.mean((2, 3), keepdim=True))))
        return net.head(x * F.hardsigmoid(scale))

    return Net(run, stem=conv_bn(3, 12), squeeze=conv(12, 4, 1), excite=conv(4, 12, 1), head=pooled(12)), image()


@toy(channels=[8, 6, 12])
def dense_concat() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        features = [net.stem(x)]
        for layer in net.layers:
            features.append(layer(torch.cat(features, 1)))
        return net.head(torch.cat(features, 1))

    def layer(inputs: int, growth: int) -> nn.Module:
        return chain(nn.BatchNorm2d(inputs), nn.ReLU(), conv(inputs, growth))

    return Net(run, stem=conv(3, 8), layers=nn.ModuleList([layer(8, 6), layer(14, 12)]), head=pooled(26)), image()


@toy(channels=[12, 8])
def chunk_cat() -> Made:
    """Both halves of 24 channels keep the same positions: chunk cuts in equal parts whatever the size."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        left, right = net.stem(x).chunk(2, dim=1)
        return net.head(torch.cat([net.conv(left), right], dim=1))

    return Net(run, stem=conv_bn(3, 24), conv=conv_bn(12, 8), head=pooled(20)), image()


@toy(channels=[8, 12, 6])
def c2f() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        pieces = list(net.enter(net.stem(x)).chunk(2, 1))
        pieces.append(pieces[-1] + net.inner(pieces[-1]))
        return net.head(net.leave(torch.cat(pieces, 1)))

    inner = chain(conv_bn(12, 6), conv_bn(6, 12))
    parts = {"enter": conv_bn(8, 24, 1), "inner": inner, "leave": conv_bn(36, 10, 1)}
    return Net(run, stem=conv_bn(3, 8), **parts, head=pooled(10)), image()


@toy(channels=[12, 8])
def csp_halves() -> Made:
    """The place of the cut follows from the shape, so the halves stay equal."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        half = x.shape[1] // 2
        return net.head(torch.cat([x[:, :half], net.branch(x[:, half:])], dim=1))

    return Net(run, stem=conv_bn(3, 24), branch=conv_bn(12, 8), head=pooled(20)), image()


class CrossStage(nn.Module):
    """Cross stage partial block: the width is stored, half of it is a size of the split."""

    def __init__(self, inputs: int, expanded: int) -> None:
        super().__init__()
        self.expand_chs = expanded
        self.conv_exp, self.branch = conv_bn(inputs, expanded, 1), conv_bn(expanded // 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_exp(x)
        kept, processed = x.split(self.expand_chs // 2, dim=1)
        return torch.cat([kept, self.branch(processed)], dim=1)


@toy(channels=[8, 12, 10])
def csp_attribute() -> Made:
    return chain(conv_bn(3, 8), CrossStage(8, 24), pooled(22)), image()


class Hierarchical(nn.Module):
    """Res2Net: four pieces of a stored width, each added to what the one before became."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.enter, self.leave = conv_bn(inputs, 4 * width, 1), conv_bn(4 * width, inputs, 1)
        self.convs = nn.ModuleList(conv_bn(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(self.enter(x), self.width, 1)
        done: list[torch.Tensor] = []
        for layer, piece in zip(self.convs, pieces, strict=False):
            done.append(layer(done[-1] + piece if done else piece))
        return x + self.leave(torch.cat([*done, pieces[3]], 1))


@toy(channels=[6, 8])
def res2net() -> Made:
    return chain(conv_bn(3, 8), Hierarchical(8, 6), pooled(8)), image()


class SplitAttention(nn.Module):
    """ResNeSt with radix 2: a softmax over the two copies of every channel."""

    def __init__(self, inputs: int, outputs: int, inner: int) -> None:
        super().__init__()
        self.radix = 2
        self.conv = conv_bn(inputs, 2 * outputs, groups=2)
        self.fc1, self.bn1, self.fc2 = conv(outputs, inner, 1), nn.BatchNorm2d(inner), conv(inner, 2 * outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        b, rc, h, w = x.shape
        x = x.reshape(b, self.radix, rc // self.radix, h, w)
        attention = self.fc2(F.relu(self.bn1(self.fc1(x.sum(1).mean((2, 3), keepdim=True)))))
        attention = attention.view(b, 1, self.radix, -1).transpose(1, 2).softmax(1)  # (b, radix, 1, c)
        return (x * attention.reshape(b, self.radix, rc // self.radix, 1, 1)).sum(1)


@toy(channels=[4, 12, 6])
def split_attention() -> Made:
    return chain(conv_bn(3, 8), SplitAttention(8, 12, 6), pooled(12)), image()


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


@toy(channels=[8, 4, 10])
def channel_shuffle() -> Made:
    """Twelve channels as three groups of four: the four can shrink, the three is written in the forward."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.head(net.after(shuffle(net.before(net.stem(x)), 3)))

    return Net(run, stem=conv_bn(3, 8), before=conv_bn(8, 12), after=conv_bn(12, 10), head=pooled(10)), image()


@toy(channels=[12, 6])
def shuffle_unit() -> Made:
    """ShuffleNet v2: half stays, half is worked on, both are shuffled: all four pieces of twelve go together."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        left, right = net.stem(x).chunk(2, dim=1)
        return net.head(shuffle(torch.cat((left, net.branch(right)), dim=1), 2))

    return Net(run, stem=conv_bn(3, 24), branch=chain(conv_bn(12, 6), conv_bn(6, 12)), head=pooled(24)), image()


@toy(channels=[8, 12])
def pixel_shuffle() -> Made:
    return chain(conv_bn(3, 8), conv(8, 48), nn.PixelShuffle(2), nn.ReLU(), pooled(12)), image()


@toy(channels=[6, 8])
def pixel_unshuffle() -> Made:
    return chain(conv_bn(3, 6), nn.PixelUnshuffle(2), conv_bn(24, 8), pooled(8)), image()


@toy(channels=[8, 12, 6])
def conv_transpose() -> Made:
    up = chain(nn.ConvTranspose2d(12, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU())
    return chain(conv_bn(3, 8), conv_bn(8, 12), up, pooled(6)), image()


@toy(channels=[4, 8], any=[3])
def conv_transpose_grouped() -> Made:
    up = chain(nn.ConvTranspose2d(12, 24, 3, padding=1, groups=3), nn.BatchNorm2d(24), nn.ReLU())
    return chain(conv_bn(3, 12), up, pooled(24)), image()


@toy(channels=[12])
def shared_twice() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.head(F.relu(net.conv(F.relu(net.conv(net.stem(x))))))

    return Net(run, stem=conv_bn(3, 12), conv=conv(12, 12), head=pooled(12)), image()


@toy(channels=[12])
def repvgg() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        return net.head(F.relu(net.large(x) + net.small(x) + net.identity(x)))

    large, small = chain(conv(12, 12), nn.BatchNorm2d(12)), chain(conv(12, 12, 1), nn.BatchNorm2d(12))
    return Net(
        run, stem=conv_bn(3, 12), large=large, small=small, identity=nn.BatchNorm2d(12), head=pooled(12)
    ), image()


@toy(channels=[8, 12, 24, 10, 9, 7, 6])
def unet() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        first = net.enc1(x)
        second = net.enc2(F.max_pool2d(first, 2))
        x = net.up2(net.middle(F.max_pool2d(second, 2)))
        x = net.up1(net.dec2(torch.cat([second, x], 1)))
        return net.out(net.dec1(torch.cat([x, first], 1)))

    down = {"enc1": conv_bn(3, 8), "enc2": conv_bn(8, 12), "middle": conv_bn(12, 24)}
    up = {"up2": nn.ConvTranspose2d(24, 10, 2, 2), "dec2": conv_bn(22, 9), "up1": nn.ConvTranspose2d(9, 7, 2, 2)}
    return Net(run, **down, **up, dec1=conv_bn(15, 6), out=conv(6, 2, 1)), image()


@toy(channels=[8, 12])
def conv3d() -> Made:
    body = chain(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 12, 1))
    return chain(body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, 5)), torch.randn(2, 3, 4, 6, 6)


@toy(channels=[8, 12])
def conv1d() -> Made:
    body = chain(nn.Conv1d(5, 8, 3, stride=2), nn.BatchNorm1d(8), nn.GELU(), nn.Conv1d(8, 12, 3, dilation=2))
    return chain(body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 4)), torch.randn(2, 5, 20)


@toy(channels=[8, 12])
def prelu() -> Made:
    return chain(conv(3, 8), nn.PReLU(8), conv(8, 12), nn.PReLU(), pooled(12)), image()


class FrozenBatchNorm(nn.Module):
    """Scale, shift and statistics as buffers, the torchvision way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), start))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        scale = weight * (self.running_var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * scale + (bias - self.running_mean.reshape(1, -1, 1, 1) * scale)


@toy(channels=[12, 8])
def frozen_batch_norm() -> Made:
    return chain(conv(3, 12), FrozenBatchNorm(12), nn.ReLU(), conv(12, 8), FrozenBatchNorm(8), pooled(8)), image()


@toy(any=[12], neurons=[24])
def layer_norm() -> Made:
    return chain(nn.Linear(5, 12), nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 4)), sequence()


@toy(any=[12], neurons=[24])
def rms_norm() -> Made:
    return chain(nn.Linear(5, 12), nn.RMSNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 4)), sequence()


class HandRms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width).uniform_(0.5, 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@toy(any=[12], neurons=[24])
def rms_norm_by_hand() -> Made:
    return chain(nn.Linear(5, 12), HandRms(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 4)), sequence()


@toy(channels=[8], any=[4])
def group_norm() -> Made:
    """Three groups of four: positions leave every group alike, so that groups stay equally large."""
    return chain(conv(3, 12), nn.GroupNorm(3, 12), nn.ReLU(), conv(12, 8), nn.ReLU(), pooled(8)), image()


@toy(channels=[12, 8])
def instance_norm() -> Made:
    norm = nn.InstanceNorm2d(12, affine=True, track_running_stats=True)
    return chain(conv(3, 12), norm, nn.ReLU(), conv(12, 8), nn.InstanceNorm2d(8), nn.ReLU(), pooled(8)), image()


@toy(any=[12], neurons=[24])
def convnext() -> Made:
    """Depthwise, layer norm over channels moved last, two linears, a layer scale, an addition."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        y = net.norm(net.depthwise(x).permute(0, 2, 3, 1))
        y = net.gamma * net.narrow(F.gelu(net.widen(y)))
        return net.head(x + y.permute(0, 3, 1, 2))

    inside = {"depthwise": conv(12, 12, 7, groups=12), "norm": nn.LayerNorm(12), "gamma": nn.Parameter(torch.rand(12))}
    linears = {"widen": nn.Linear(12, 24), "narrow": nn.Linear(24, 12)}
    return Net(run, stem=conv(3, 12), **inside, **linears, head=pooled(12)), image()


class StandardisedConv(nn.Conv2d):
    """Weights of every filter are standardised in the forward and multiplied by a gain of their own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.empty(outputs, 1, 1, 1).uniform_(0.5, 1.5))
        self.scale = (inputs * 9) ** -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1),
            None,
            None,
            weight=(self.gain * self.scale).view(-1),
            training=True,
            momentum=0.0,
            eps=1e-6,
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@toy(channels=[12, 6])
def standardised_conv() -> Made:
    """Filters can go; the inputs of a standardised one (the eight) share its statistics, so they may stay frozen."""
    body = chain(StandardisedConv(3, 12), nn.ReLU(), conv(12, 8), nn.ReLU(), StandardisedConv(8, 6), nn.ReLU())
    return chain(body, pooled(6)), image()


@toy(channels=[12, 8])
def weight_norm() -> Made:
    return chain(parametrizations.weight_norm(conv(3, 12)), nn.ReLU(), conv(12, 8), nn.ReLU(), pooled(8)), image()


@toy(channels=[24], largest_frozen=0.31, layers_only=False)
def spectral_norm() -> Made:
    """The norm of a whole weight changes with any of its rows or columns: what lies beside it may freeze."""
    body = chain(conv(3, 8), nn.ReLU(), parametrizations.spectral_norm(conv(8, 12)), nn.ReLU(), conv(12, 24), nn.ReLU())
    return chain(body, pooled(24)), image()


@toy(neurons=[24], largest_frozen=0.4, layers_only=False)
def orthogonal() -> Made:
    """A part of an orthogonal matrix is none: its rows and columns stay."""
    body = chain(nn.Linear(5, 8), nn.ReLU(), parametrizations.orthogonal(nn.Linear(8, 12)), nn.ReLU())
    return chain(body, nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4)), sequence()


@toy(any=[12], neurons=[24])
def tied_embedding() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.decoder(net.mlp(net.embedding(x)))

    embedding, decoder = nn.Embedding(30, 12), nn.Linear(12, 30, bias=False)
    decoder.weight = embedding.weight
    return Net(
        run, embedding=embedding, mlp=chain(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12)), decoder=decoder
    ), words()


@toy(neurons=[12, 24])
def tied_linears() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        return net.head(net.left(x).tanh() * net.right(x).sigmoid())

    left, right = nn.Linear(12, 24), nn.Linear(12, 24)
    right.weight = left.weight
    return Net(run, stem=nn.Linear(5, 12), left=left, right=right, head=nn.Linear(24, 4)), sequence()


@toy(neurons=[12, 24], layers_only=False)
def tied_transposed() -> Made:
    """An autoencoder that decodes with the transpose of what it encodes with."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        return net.head(F.linear(F.relu(net.encoder(x)), net.encoder.weight.t(), net.bias).tanh())

    bias = nn.Parameter(torch.randn(12))
    return Net(run, stem=nn.Linear(5, 12), encoder=nn.Linear(12, 24), bias=bias, head=nn.Linear(12, 4)), sequence()


@toy(neurons=[12, 24])
def glu_packed() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        value, gate = net.both(F.relu(net.stem(x))).chunk(2, dim=-1)
        return net.head(value * gate.sigmoid())

    return Net(run, stem=nn.Linear(5, 12), both=nn.Linear(12, 48), head=nn.Linear(24, 4)), sequence()


@toy(neurons=[12, 24])
def glu_operator() -> Made:
    return chain(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 48), nn.GLU(), nn.Linear(24, 4)), sequence()


class SwiGlu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


@toy(neurons=[12, 24])
def swiglu() -> Made:
    return chain(nn.Linear(5, 12), SwiGlu(12, 24), nn.Linear(12, 4)), sequence()


class Vit(nn.Module):
    """Patches, a class token and a position embedding, one block without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 5, 24))
        self.norm1, self.norm2 = nn.LayerNorm(24), nn.LayerNorm(24)
        self.mlp, self.head = chain(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 24)), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.norm2(x + self.mlp(self.norm1(x)))[:, 0])


@toy(any=[24], neurons=[32])
def class_token() -> Made:
    return Vit(), image()


class Scale(nn.Module):
    """A scale for every channel and the shape it is seen in, stored."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shape = (width, 1, 1)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.view(self.shape)


class StoredShapes(nn.Module):
    """The width is stored beside the layers, and the forward reshapes by it."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.hidden_dim = width
        self.patches, self.scale = nn.Conv2d(3, width, 4, stride=4), Scale(width)
        self.mlp, self.head = chain(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        x = self.scale(self.patches(x)).reshape(b, self.hidden_dim, h * w // 16).permute(0, 2, 1)
        return self.head((x + self.mlp(x)).mean(1))


@toy(any=[24], neurons=[32])
def stored_shapes() -> Made:
    return StoredShapes(24, 32), image()


@toy(any=[12], neurons=[24, 32])
def mixer() -> Made:
    """One linear pair runs over sixteen tokens, one over twelve channels; the number of tokens is the image's."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)  # (b, tokens, c)
        x = x + net.tokens(net.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + net.channels(net.norm2(x))
        return net.head(x.mean(1))

    tokens = chain(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
    channels = chain(nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 12))
    norms = {"norm1": nn.LayerNorm(12), "norm2": nn.LayerNorm(12)}
    patches = nn.Conv2d(3, 12, 2, stride=2)
    return Net(run, patches=patches, tokens=tokens, channels=channels, **norms, head=nn.Linear(12, 5)), image()


@toy(channels=[12], any=[9], neurons=[24])
def unfold_fold() -> Made:
    """MobileViT: 2 x 2 patches become sequences and images again, the channels merged with batch and rows between."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        local = net.stem(x)
        x = net.enter(local)
        b, c, h, w = x.shape
        x = x.reshape(b * c * (h // 2), 2, w // 2, 2).transpose(1, 2)
        x = x.reshape(b, c, h * w // 4, 4).transpose(1, 3).reshape(b * 4, h * w // 4, -1)
        x = x + net.mlp(net.norm(x))
        x = x.contiguous().view(b, 4, h * w // 4, -1).transpose(1, 3)
        x = x.reshape(b * c * (h // 2), w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)
        return net.head(torch.cat([local, net.leave(x)], dim=1))

    mlp = chain(nn.Linear(9, 24), nn.SiLU(), nn.Linear(24, 9))
    inside = {"enter": conv(12, 9, 1), "norm": nn.LayerNorm(9), "mlp": mlp, "leave": conv_bn(9, 10, 1)}
    return Net(run, stem=conv_bn(3, 12), **inside, head=pooled(22)), image()


@toy(heads=[4], any=[24], layers_only=False)
def multihead_attention() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        y, _ = net.attention(x, x, x, need_weights=False)
        return net.head(x + y)

    attention = nn.MultiheadAttention(24, 4, batch_first=True)
    return Net(run, stem=nn.Linear(5, 24), attention=attention, head=nn.Linear(24, 3)), sequence()


@toy(heads=[4, 4], any=[24], neurons=[32, 32], layers_only=False)
def transformer_encoder() -> Made:
    """In eval mode and without gradients every layer is one fused operator."""
    layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=True)
    return chain(nn.Linear(5, 24), nn.TransformerEncoder(layer, 2), nn.Linear(24, 4)), sequence()


@toy(heads=[4], any=[24, 12], layers_only=False)
def cross_attention() -> Made:
    """Queries from one sequence, keys and values of another width from a longer one."""

    def run(net: Net, asking: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        x, memory = net.stem(asking), net.memory(asked)
        y, _ = net.attention(x, memory, memory)
        return net.head(x + y)

    parts = {"memory": nn.Linear(6, 12), "attention": nn.MultiheadAttention(24, 4, kdim=12, vdim=12, batch_first=True)}
    return Net(run, stem=nn.Linear(5, 24), **parts, head=nn.Linear(24, 3)), (sequence(), torch.randn(2, 9, 6))


class FusedAttention(nn.Module):
    """One linear for q, k and v; heads and their size are stored, so heads go without changing the width around."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, width // heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (b, heads, n, head_dim) each
        attention = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class OldFusedAttention(nn.Module):
    """The size of a head is computed from the width around: heads cannot leave without a part of that width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """Attention and two linears, each after a layer norm and beside an identity."""

    def __init__(self, attention: nn.Module, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(width), nn.LayerNorm(width), attention
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class SeparateAttention(nn.Module):
    """BERT: three linears; heads, their size and the product of both are stored, all three to be changed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = heads, width // heads, width
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._by_head(layer(x)) for layer in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).contiguous()
        return self.dense(y.view(*y.shape[:-2], self.all_head_size))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)


@toy(heads=[4], any=[24], neurons=[32], layers_only=False)
def separate_qkv() -> Made:
    return chain(nn.Linear(5, 24), Block(SeparateAttention(24, 4), 24, 32), nn.Linear(24, 3)), sequence()


@toy(heads=[4], head_dim=[6], any=[24], neurons=[32], layers_only=False)
def fused_qkv() -> Made:
    return chain(nn.Linear(5, 24), Block(FusedAttention(24, 4), 24, 32), nn.Linear(24, 3)), sequence()


@toy(any=[4], neurons=[32], layers_only=False)
def fused_qkv_old() -> Made:
    """A head leaves with its share of the width around, everywhere that width is."""
    return chain(nn.Linear(5, 24), Block(OldFusedAttention(24, 4), 24, 32), nn.Linear(24, 3)), sequence()


class WindowAttention(nn.Module):
    """Swin: rolled 4 x 4 windows of an image, a table of biases by relative position and head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, width // heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(49, heads))
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        rows, columns = rows.flatten(), columns.flatten()
        offsets = (rows[:, None] - rows + 3) * 7 + columns[:, None] - columns + 3
        self.register_buffer("offsets", offsets.flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, h, w, c = x.shape
        x = torch.roll(x, (-2, -2), dims=(1, 2))
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        qkv = self.qkv(x).reshape(x.shape[0], 16, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        bias = self.table[self.offsets].view(16, 16, -1).permute(2, 0, 1)
        attention = (qkv[0] * self.scale @ qkv[1].transpose(-2, -1) + bias).softmax(dim=-1)
        x = self.proj((attention @ qkv[2]).transpose(1, 2).reshape(x.shape[0], 16, -1))
        x = x.view(b, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)
        return torch.roll(x, (2, 2), dims=(1, 2))


@toy(heads=[3], any=[12, 20], neurons=[32], layers_only=False)
def window_attention() -> Made:
    """A Swin block, then patch merging: four shifted quarters of the image side by side."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.block(net.stem(x).permute(0, 2, 3, 1))
        quarters = [x[:, i::2, j::2, :] for j in (0, 1) for i in (0, 1)]
        return net.head(net.reduce(net.norm(torch.cat(quarters, dim=-1))).mean((1, 2)))

    merging = {"norm": nn.LayerNorm(48), "reduce": nn.Linear(48, 20, bias=False)}
    block = Block(WindowAttention(12, 3), 12, 32)
    return Net(run, stem=conv(3, 12), block=block, **merging, head=nn.Linear(20, 5)), image()


class GroupedQueries(nn.Module):
    """Llama: separate q, k and v, each key head read by several query heads, rotary positions."""

    def __init__(self, width: int, kv_heads: int, queries: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim, self.num_key_value_groups = head_dim, queries
        self.q_proj = nn.Linear(width, kv_heads * queries * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(kv_heads * queries * head_dim, width, bias=False)
        angles = torch.outer(torch.arange(16.0), 100.0 ** -(torch.arange(0.0, head_dim, 2) / head_dim)).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self._rotate(q), self._rotate(k)
        k, v = self._repeat(k), self._repeat(v)
        attention = (q @ k.transpose(2, 3) * 0.4).softmax(dim=-1)
        return self.o_proj((attention @ v).transpose(1, 2).reshape(b, n, -1))

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        half, n = x.shape[-1] // 2, x.shape[-2]
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return x * self.cos[:n] + turned * self.sin[:n]

    def _repeat(self, x: torch.Tensor) -> torch.Tensor:
        b, heads, n, d = x.shape
        x = x[:, :, None].expand(b, heads, self.num_key_value_groups, n, d)
        return x.reshape(b, heads * self.num_key_value_groups, n, d)


@toy(heads=[2], any=[24], neurons=[32], layers_only=False)
def grouped_queries() -> Made:
    """Two key heads with three query heads each: a key head leaves with its queries."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.embedding(x)
        x = x + net.attention(net.norm1(x))
        return net.head(net.norm3(x + net.mlp(net.norm2(x))))

    norms = {f"norm{i}": HandRms(24) for i in (1, 2, 3)}
    attention, mlp = GroupedQueries(24, 2, 3, 6), SwiGlu(24, 32)
    return Net(
        run, embedding=nn.Embedding(30, 24), attention=attention, mlp=mlp, **norms, head=nn.Linear(24, 30)
    ), words()


def recurrent(layer: nn.RNNBase, outputs: int) -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        y, _ = net.recurrent(net.embedding(x))
        return net.head(y)

    return Net(run, embedding=nn.Embedding(30, 12), recurrent=layer, head=nn.Linear(outputs, 5)), words()


@toy(any=[12, 8], layers_only=False)
def lstm() -> Made:
    return recurrent(nn.LSTM(12, 8, batch_first=True), 8)


@toy(any=[12], largest_frozen=0.05, layers_only=False)
def lstm_projected() -> Made:
    """torch takes a projection as wide as the hidden state for none: only one of the two widths is free to shrink."""
    return recurrent(nn.LSTM(12, 8, batch_first=True, proj_size=6), 6)


@toy(any=[12, 8], layers_only=False)
def lstm_bidirectional() -> Made:
    """Two layers, both directions: hidden_size is one number, so all four keep equally many."""
    return recurrent(nn.LSTM(12, 8, num_layers=2, batch_first=True, bidirectional=True), 16)


@toy(any=[12, 8], layers_only=False)
def gru() -> Made:
    return recurrent(nn.GRU(12, 8, batch_first=True), 8)


@toy(any=[12, 8], layers_only=False)
def gru_bidirectional() -> Made:
    return recurrent(nn.GRU(12, 8, num_layers=2, batch_first=True, bidirectional=True), 16)


@toy(any=[12, 8], layers_only=False)
def rnn() -> Made:
    return recurrent(nn.RNN(12, 8, num_layers=2, batch_first=True), 8)


@toy(channels=[8, 12, 24])
def frozen_trunk() -> Made:
    trunk = chain(conv_bn(3, 8), conv_bn(8, 12))
    return chain(trunk.requires_grad_(False), conv_bn(12, 24), pooled(24)), image()


@toy(channels=[8, 12, 24])
def no_grad_stem() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = net.stem(x)
        return net.rest(x)

    return Net(run, stem=chain(conv_bn(3, 8), conv_bn(8, 12)), rest=chain(conv_bn(12, 24), pooled(24))), image()


@toy(channels=[8, 12], any=[24], neurons=[16])
def several_inputs() -> Made:
    """A picture and a sentence in, by name; a dictionary with a tuple in it out."""

    def run(net: Net, picture: torch.Tensor, sentence: torch.Tensor) -> dict[str, Any]:
        seen = net.eye(picture)
        read = net.embedding(sentence).mean(1)
        joint = F.relu(net.joint(torch.cat([seen.mean((2, 3)), read], dim=1)))
        return {"logits": net.head(joint), "more": (net.extra(seen), None)}

    eye = chain(conv_bn(3, 8), conv_bn(8, 12))
    heads = {"joint": nn.Linear(36, 16), "head": nn.Linear(16, 5), "extra": conv(12, 2, 1)}
    return Net(run, eye=eye, embedding=nn.Embedding(30, 24), **heads), {"picture": image(), "sentence": words()}


@toy(channels=[8, 12])
def two_pictures() -> Made:
    """Positional inputs that go through the same trunk."""

    def run(net: Net, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return net.head((net.trunk(left) - net.trunk(right)).abs())

    return Net(run, trunk=chain(conv_bn(3, 8), conv_bn(8, 12)), head=pooled(12)), (image(), image())


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return gradient * s * (1 + x * (1 - s))


@toy(channels=[8, 12])
def autograd_function() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.head(Swish.apply(net.second(Swish.apply(net.first(x)))))

    return Net(run, first=conv(3, 8), second=conv(8, 12), head=pooled(12)), image()


@toy(channels=[12], frozen="no rule for operator renorm", largest_frozen=0.25)
def unknown_operator() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.head(net.second(net.first(x).renorm(2, 0, 1e9)))

    return Net(run, first=conv(3, 8), second=conv_bn(8, 12), head=pooled(12)), image()


@toy(channels=[8], neurons=[24], frozen="view|forward")
def hard_coded_width() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.second(net.first(x))
        return net.head(x.view(x.shape[0], 12, -1).mean(-1))

    head = chain(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5))
    return Net(run, first=conv_bn(3, 8), second=conv_bn(8, 12), head=head), image()


class Scripted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.7 * x)


@toy(channels=[8, 12])
def scripted_activation() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scripting goes, the networks made with it stay
        activation = torch.jit.script(Scripted())
    return chain(conv(3, 8), activation, conv(8, 12), activation, pooled(12)), image()


class Experts(nn.Module):
    """A gate and a list of experts, every one of them evaluated and weighted by the gate."""

    def __init__(self, width: int, inner: Sequence[int]) -> None:
        super().__init__()
        self.gate = nn.Linear(width, len(inner))
        self.experts = nn.ModuleList(chain(nn.Linear(width, n), nn.ReLU(), nn.Linear(n, width)) for n in inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.gate(x).softmax(-1)
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class SparseExperts(Experts):
    """Only the two experts with the largest weights see a token."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        weights, chosen = self.gate(tokens).softmax(-1).topk(2, dim=-1)
        result = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == i)
            result.index_add_(0, rows, weights[rows, place, None] * expert(tokens[rows]))
        return result.reshape(x.shape)


class PackedExperts(nn.Module):
    """All experts in one pair of parameters: an expert is a position along their first dimension."""

    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, inner) / width)
        self.down = nn.Parameter(torch.randn(experts, inner, width) / inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.gate(x).softmax(-1)
        hidden = F.relu(torch.einsum("bnc,eci->bnei", x, self.up))
        return torch.einsum("bne,bnei,eic->bnc", weights, hidden, self.down)


@toy(any=[12], neurons=[24, 20, 16])
def experts_dense() -> Made:
    return chain(nn.Linear(5, 12), nn.ReLU(), Experts(12, (24, 20, 16)), nn.Linear(12, 4)), sequence()


@toy(any=[12], neurons=[24, 20, 16], layers_only=False)
def experts_sparse() -> Made:
    """How many tokens an expert sees depends on the numbers: its products are those of the example."""
    return chain(nn.Linear(5, 12), nn.ReLU(), SparseExperts(12, (24, 20, 16)), nn.Linear(12, 4)), sequence()


@toy(any=[12, 24, 3], layers_only=False)
def experts_packed() -> Made:
    return chain(nn.Linear(5, 12), nn.ReLU(), PackedExperts(12, 24, 3), nn.Linear(12, 4)), sequence()
