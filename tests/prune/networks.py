"""Small networks of many patterns, a counter that knows nothing of the library, and random kept positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode
from toys import (
    NORMS,
    Experts,
    FusedAttention,
    GroupedQueries,
    HandRms,
    Hierarchical,
    MixedConv,
    OldFusedAttention,
    PackedExperts,
    SeparateAttention,
    StandardisedConv,
    SwiGlu,
)

import autoprune

SIZE = 6  # pixels a side of what every pattern of images sees
TOKENS = 6  # what every pattern of sequences sees


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


class GroupNormed(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c, 6, 3, padding=1), nn.GroupNorm(2, 6)
        self.width = 6

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class NormedLast(nn.Module):
    """ConvNeXt: depthwise, a layer norm over channels moved last, two linears, a scale, an addition."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(c, c, 3, padding=1, groups=c), nn.LayerNorm(c)
        self.widen, self.narrow, self.scale = nn.Linear(c, 7), nn.Linear(7, c), nn.Parameter(torch.rand(c))
        self.width = c

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.widen(y)))).permute(0, 3, 1, 2)


class Chunked(nn.Module):
    """C2f: two equal pieces, one of them worked on, all of them joined."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.enter, self.inner, self.outer = nn.Conv2d(c, 8, 1), nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.leave = nn.Conv2d(12, 6, 1)
        self.width = 6

    def forward(self, x):
        pieces = list(self.enter(x).chunk(2, dim=1))
        pieces.append(pieces[-1] + self.outer(F.relu(self.inner(pieces[-1]))))
        return self.leave(torch.cat(pieces, dim=1))


class Halved(nn.Module):
    """Two slices of a width that is computed from the shape."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.enter, self.branch = nn.Conv2d(c, 8, 1), nn.Conv2d(4, 5, 3, padding=1)
        self.width = 9

    def forward(self, x):
        x = self.enter(x)
        half = x.shape[1] // 2
        return torch.cat([x[:, :half], self.branch(x[:, half:])], dim=1)


class PixelShuffled(nn.Module):
    """Pixels from channels, and channels from pixels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.mix, self.norm = nn.PixelUnshuffle(2), nn.Conv2d(4 * c, 20, 1), nn.BatchNorm2d(5)
        self.width = 5

    def forward(self, x):
        return F.relu(self.norm(F.pixel_shuffle(self.mix(self.down(x)), 2)))


class WeightNormed(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv2d(c, 5, 3, padding=1))
        self.width = 5

    def forward(self, x):
        return F.elu(self.conv(x))


class Skipping(nn.Module):
    """A U-Net of one level."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, 7, 3, padding=1), nn.ConvTranspose2d(7, 4, 2, stride=2)
        self.join = nn.Conv2d(c + 4, 6, 3, padding=1)
        self.width = 6

    def forward(self, x):
        low = F.relu(self.down(F.max_pool2d(x, 2)))
        return F.relu(self.join(torch.cat([x, self.up(low)], dim=1)))


class Windowed(nn.Module):
    """Swin: attention in rolled 3 x 3 windows with a bias for every head, beside an identity."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 2, 3
        self.norm, self.qkv, self.proj = nn.LayerNorm(c), nn.Linear(c, 18), nn.Linear(6, c)
        self.bias = nn.Parameter(torch.randn(2, 9, 9))
        self.width = c

    def forward(self, x):
        b, c, h, w = x.shape
        y = torch.roll(self.norm(x.permute(0, 2, 3, 1)), (-1, -1), dims=(1, 2))
        y = y.view(b, h // 3, 3, w // 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 9, c)
        qkv = self.qkv(y).reshape(y.shape[0], 9, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] * 0.6 @ qkv[1].transpose(-2, -1) + self.bias).softmax(dim=-1)
        y = self.proj((weights @ qkv[2]).transpose(1, 2).reshape(-1, 9, self.num_heads * self.head_dim))
        y = y.view(b, h // 3, w // 3, 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return x + torch.roll(y, (1, 1), dims=(1, 2)).permute(0, 3, 1, 2)


class Attended(nn.Module):
    """Torch's attention over the places of an image, beside an identity."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.enter, self.attention = nn.Conv2d(c, 8, 1), nn.MultiheadAttention(8, 2, batch_first=True)
        self.width = 8

    def forward(self, x):
        x = self.enter(x)
        tokens = x.flatten(2).transpose(1, 2)  # (b, places, c)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return tokens.transpose(1, 2).reshape(x.shape)


class Contracted(nn.Module):
    """A product written as an einsum."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, c) / c)
        self.width = 5

    def forward(self, x):
        return F.leaky_relu(torch.einsum("bchw,dc->bdhw", x, self.weight))


def hierarchical(c: int) -> nn.Module:
    """Res2Net."""
    return wide(nn.Sequential(Hierarchical(c, 3)), c)


def mixed_kernels(c: int) -> nn.Module:
    return wide(nn.Sequential(nn.Conv2d(c, 9, 1), MixedConv((5, 4), (3, 1)), nn.ReLU()), 9)


def standardised(c: int) -> nn.Module:
    return wide(nn.Sequential(StandardisedConv(c, 6), nn.ReLU()), 6)


def wide(module: nn.Module, width: int) -> nn.Module:
    """The module, which knows the width of what it returns."""
    module.width = width
    return module


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


# Sequences: patterns take and return (b, TOKENS, c).


class Beside(nn.Module):
    """Twelve features, and a module beside an identity and after a normalisation."""

    def __init__(self, c: int, norm: nn.Module, inside: nn.Module) -> None:
        super().__init__()
        self.enter, self.norm, self.inside = nn.Linear(c, 12), norm, inside
        self.width = 12

    def forward(self, x):
        x = self.enter(x)
        return x + self.inside(self.norm(x))


def fused(c: int) -> nn.Module:
    return Beside(c, nn.LayerNorm(12), FusedAttention(12, 3))


def fused_old(c: int) -> nn.Module:
    return Beside(c, nn.LayerNorm(12), OldFusedAttention(12, 2))


def separate(c: int) -> nn.Module:
    return Beside(c, nn.LayerNorm(12), SeparateAttention(12, 3))


def grouped_queries(c: int) -> nn.Module:
    """Separate projections, two key heads with three query heads each, rotary positions."""
    return Beside(c, HandRms(12), GroupedQueries(12, 2, 3, 4))


def gated_linears(c: int) -> nn.Module:
    return Beside(c, nn.RMSNorm(12), SwiGlu(12, 7))


def packed_experts(c: int) -> nn.Module:
    return Beside(c, nn.LayerNorm(12), PackedExperts(12, 5, 3))


class BatchedExperts(nn.Module):
    """Every token through every expert, in two batched products, weighted by a gate."""

    def __init__(self, c: int, inner: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Linear(c, count)
        self.up, self.down = nn.Parameter(torch.randn(count, c, inner)), nn.Parameter(torch.randn(count, inner, c))

    def forward(self, x):
        tokens = x.reshape(1, -1, x.shape[-1]).expand(self.up.shape[0], -1, -1)  # (experts, tokens, c)
        y = torch.bmm(F.relu(torch.bmm(tokens, self.up)), self.down)
        weights = self.gate(x).flatten(0, 1).softmax(-1).t().unsqueeze(-1)
        return (weights * y).sum(0).reshape(x.shape)


def batched_experts(c: int) -> nn.Module:
    return Beside(c, nn.LayerNorm(12), BatchedExperts(12, 5, 3))


def experts(c: int) -> nn.Module:
    return Beside(c, nn.RMSNorm(12), Experts(12, (4, 5)))


def gated_operator(c: int) -> nn.Module:
    return wide(nn.Sequential(nn.Linear(c, 10), nn.GLU()), 5)


def encoder_layer(c: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 9, batch_first=True)
    return wide(nn.Sequential(nn.Linear(c, 8), layer), 8)


class Perceptron(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm, self.widen, self.narrow = nn.LayerNorm(c), nn.Linear(c, 9), nn.Linear(9, c)
        self.width = c

    def forward(self, x):
        return x + self.narrow(F.gelu(self.widen(self.norm(x))))


class PackedGate(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.both = nn.Linear(c, 12)
        self.width = 6

    def forward(self, x):
        value, gate = self.both(x).chunk(2, dim=-1)
        return value * F.silu(gate)


class Crossed(nn.Module):
    """Queries of another width than keys and values."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.queries = nn.Linear(c, 8)
        self.attention = nn.MultiheadAttention(8, 2, kdim=c, vdim=c, batch_first=True)
        self.width = 8

    def forward(self, x):
        return self.attention(self.queries(x), x, x)[0]


class Recurrent(nn.Module):
    """Both directions; hidden_size is one number."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(c, 4, batch_first=True, bidirectional=True)
        self.width = 8

    def forward(self, x):
        return self.layer(x)[0]


class Gru(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.layer = nn.GRU(c, 5, batch_first=True)
        self.width = 5

    def forward(self, x):
        return self.layer(x)[0]


class TokensMixed(nn.Module):
    """A pair of linears over the tokens, whose number is the input's."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm, self.widen, self.narrow = nn.LayerNorm(c), nn.Linear(TOKENS, 5), nn.Linear(5, TOKENS)
        self.width = c

    def forward(self, x):
        return x + self.narrow(F.gelu(self.widen(self.norm(x).transpose(1, 2)))).transpose(1, 2)


class Convolved(nn.Module):
    """A convolution over the tokens, then a normalisation of groups."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(c, 6, 3, padding=1), nn.GroupNorm(3, 6)
        self.width = 6

    def forward(self, x):
        return self.norm(self.conv(x.transpose(1, 2))).transpose(1, 2)


class SplitUp(nn.Module):
    """Pieces of sizes written into the forward, which stay; and pieces of stored sizes, which do not."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fixed, self.stored, self.sizes = nn.Linear(c, 7), nn.Linear(7, 9), [5, 4]
        self.width = 9

    def forward(self, x):
        left, right = self.fixed(x).split([3, 4], dim=-1)
        left, right = self.stored(torch.cat([left.tanh(), right], dim=-1)).split(self.sizes, dim=-1)
        return torch.cat([right, left.sigmoid()], dim=-1)


class Rolled(nn.Module):
    """Every token sees the one before; the linear is the same for both."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.linear = parametrizations.weight_norm(nn.Linear(c, 6))
        self.width = 6

    def forward(self, x):
        return self.linear(x) * self.linear(x.roll(1, 1)).sigmoid()


class MeanOfTokens(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(c), nn.Linear(c, 3)

    def forward(self, x):
        return self.linear(self.norm(x).mean(1))


class LastToken(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c, 3)

    def forward(self, x):
        return self.linear(x[:, -1])


class AllTokens(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(c * TOKENS, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(F.relu(self.hidden(x.flatten(1))))


class ToSequence(nn.Module):
    """Six patches of an image as tokens."""

    def forward(self, x):
        return F.adaptive_avg_pool2d(x, (3, 2)).flatten(2).transpose(1, 2)


class ToImage(nn.Module):
    """Tokens as six patches of an image."""

    def forward(self, x):
        b, _, c = x.shape
        return F.interpolate(x.transpose(1, 2).reshape(b, c, 3, 2), size=(SIZE, SIZE))


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
    GroupNormed,
    NormedLast,
    Chunked,
    Halved,
    PixelShuffled,
    WeightNormed,
    Skipping,
    Windowed,
    Attended,
    Contracted,
    hierarchical,
    mixed_kernels,
    standardised,
)
SEQUENCES = (
    fused,
    fused_old,
    separate,
    grouped_queries,
    gated_linears,
    gated_operator,
    packed_experts,
    batched_experts,
    experts,
    encoder_layer,
    Perceptron,
    PackedGate,
    Crossed,
    Recurrent,
    Gru,
    TokensMixed,
    Convolved,
    SplitUp,
    Rolled,
)
HEADS = (PooledHead, FlatHead, MeanHead)
SEQUENCE_HEADS = (MeanOfTokens, LastToken, AllTokens)


def network(patterns, head, seed=0):
    """A stem, patterns one after the other and a head; random weights, norms and batch norm statistics.

    The first pattern decides whether images or words go in (`example_of`). Between a pattern of images and one of
    sequences the one is made the other.
    """
    torch.manual_seed(seed)
    images_in = seen = patterns[0] in PATTERNS
    stages = [nn.Conv2d(3, 4, 3, padding=1) if images_in else nn.Embedding(30, 4)]
    width = 4
    for pattern in (*patterns, head):
        wanted = pattern in PATTERNS + HEADS
        if wanted is not seen:
            stages.append(ToImage() if wanted else ToSequence())
        stages.append(pattern(width))
        seen, width = wanted, getattr(stages[-1], "width", 0)  # a head is the last
    model = nn.Sequential(*stages).eval()
    for module in model.modules():
        if isinstance(module, (*NORMS, HandRms)):
            for tensor in [*module.parameters(), *module.buffers()]:
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def example_of(model):
    """Two images or two sentences, as the network takes them."""
    return images() if isinstance(model[0], nn.Conv2d) else words()


def words(count=2, seed=1):
    return torch.randint(0, 30, (count, TOKENS), generator=torch.Generator().manual_seed(seed))


def images(count=2, seed=1):
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def some_positions(structure, seed):
    """Random positions of every unit, from as few as may stay to all."""
    rng = np.random.default_rng(seed)
    counts = {u.name: u.allowed(int(rng.integers(u.least, u.width + 1))) for u in structure.units}
    return {u.name: np.sort(rng.permutation(u.width)[: counts[u.name]]) for u in structure.units}


def counted_macs(model, example):
    """Multiply-accumulates of one forward pass, as torch's own counter counts them (a product and a sum are two)."""
    attention, recurrent = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused kernels it does not count
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(attention)
        torch._C._set_mkldnn_enabled(recurrent)
    return counter.get_total_flops() // 2


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


def check_pruned(model, example, kept):
    """Every unit shrinks to the given counts, and the small network computes what it must."""
    structure = autoprune.find_structure(model, example)
    small = autoprune.shrink(model, structure, {unit.name: kept[unit.width] for unit in structure.units})
    report = autoprune.verify(model, small, structure, example)
    assert report.ok, report
    assert counted_params(small) < counted_params(model)
    return structure, small
