"""Methods that remove layers or branches: ShortGPT, Shortened LLaMA, BlockPruner, FinerCut, and 2SSP's two stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from language_rivals.decoder import Kept, cut, everything, streams
from language_rivals.gradients import weight_gradient_products
from language_rivals.setting import Pruned, Setting, calibration_perplexity

Branch = tuple[Sequence[int], Sequence[int]]  # the layers whose attention goes, and those whose MLP goes
Damage = Callable[[nn.Module], float]
COMPARED = 2  # batches on which logits are compared; the source of FinerCut takes ten sequences


def shortgpt(setting: Setting) -> Iterator[Pruned]:
    """Removes the layers of least block influence, one minus the mean cosine between a layer's input and output.

    Source:
        Men et al., ShortGPT, 2024, https://arxiv.org/abs/2403.03853.
    """
    yield from one_shot(setting, block_influence(setting), "block influence")


def block_influence(setting: Setting) -> list[float]:
    borders = streams(setting.model, setting.calibrate)
    return [1 - float(functional.cosine_similarity(before, after, dim=1).mean()) for before, after in pairwise(borders)]


def shortened_llama(setting: Setting) -> Iterator[Pruned]:
    """Removes the layers whose removal alone gives the least perplexity, or those of least Taylor importance.

    Source:
        Kim et al., Shortened LLaMA, 2024, https://arxiv.org/abs/2402.02834: absolute products of weights and gradients,
        summed over a layer. The published form keeps the first four and the last two layers of 32; here the first
        one and the last one, or none.
    """
    layers = range(setting.model.config.num_hidden_layers)
    alone = [calibration_perplexity(cut(setting.model, without_layers(setting, [i])), setting) for i in layers]
    yield from one_shot(setting, alone, "perplexity")
    taylor = [
        sum(float(values.abs().sum()) for values in layer.values()) for layer in weight_gradient_products(setting)
    ]
    yield from one_shot(setting, taylor, "taylor")
    yield from one_shot(setting, [math.inf, *taylor[1:-1], math.inf], "taylor, first and last layers whole")


def one_shot(setting: Setting, importances: Sequence[float], options: str) -> Iterator[Pruned]:
    """Networks without the one, two, ... layers of least importance."""
    order = sorted(range(len(importances)), key=importances.__getitem__)
    path = (without_layers(setting, order[: count + 1]) for count in range(len(order)))
    yield from along(setting, path, options)


def without_layers(setting: Setting, layers: Sequence[int]) -> Kept:
    return everything(setting.model.config).without(layers, layers)


def along(setting: Setting, path: Iterable[Kept], options: str) -> Iterator[Pruned]:
    """The networks of a path, up to the first one that meets all budgets."""
    for kept in path:
        yield setting.pruned(kept, options)
        if setting.meets_all(kept):
            return


def block_pruner(setting: Setting) -> Iterator[Pruned]:
    """Removes one attention or MLP after the other, each time the one without which the perplexity is least.

    Source:
        Zhong et al., BlockPruner, 2024, https://arxiv.org/abs/2406.10594.
    """
    path = greedy(setting, branches(setting), lambda network: calibration_perplexity(network, setting))
    yield from along(setting, path, "branches, perplexity")


def iterative_layers(setting: Setting) -> Iterator[Pruned]:
    """As BlockPruner, with whole layers: what its finer parts are compared with."""
    path = greedy(setting, whole_layers(setting), lambda network: calibration_perplexity(network, setting))
    yield from along(setting, path, "layers, perplexity")


def finercut(setting: Setting) -> Iterator[Pruned]:
    """Removes one attention or MLP after the other, each time the one without which the outputs change least.

    Source:
        Zhang et al., FinerCut, 2024, https://arxiv.org/abs/2405.18218: the angular distance of logits, or the
        Jensen-Shannon divergence of the probabilities of the next token.
    """
    for name, distance in {"angle": angle, "jensen-shannon": jensen_shannon}.items():
        path = greedy(setting, branches(setting), to_dense(setting, distance))
        yield from along(setting, path, f"branches, {name}")


def finercut_layers(setting: Setting) -> Iterator[Pruned]:
    """As FinerCut, with whole layers: what its finer parts are compared with."""
    for name, distance in {"angle": angle, "jensen-shannon": jensen_shannon}.items():
        path = greedy(setting, whole_layers(setting), to_dense(setting, distance))
        yield from along(setting, path, f"layers, {name}")


def to_dense(setting: Setting, distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Damage:
    """The mean distance between a network's logits and the dense ones on batches of the calibration set."""
    batches = setting.calibrate[:COMPARED]
    with torch.no_grad():
        dense = [setting.model(tokens).logits for tokens in batches]

    @torch.no_grad()
    def damage(network: nn.Module) -> float:
        pairs = zip(dense, batches, strict=True)
        return sum(float(distance(logits, network(tokens).logits).mean()) for logits, tokens in pairs)

    return damage


def angle(dense: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return functional.cosine_similarity(dense, logits, dim=-1).clamp(-1, 1).arccos() / math.pi


def jensen_shannon(dense: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    log_p, log_q = functional.log_softmax(dense, dim=-1), functional.log_softmax(logits, dim=-1)
    log_middle = torch.logaddexp(log_p, log_q) - math.log(2)
    to_middle = log_p.exp() * (log_p - log_middle) + log_q.exp() * (log_q - log_middle)
    return to_middle.sum(dim=-1) / 2


def branches(setting: Setting) -> list[Branch]:
    layers = range(setting.model.config.num_hidden_layers)
    return [branch for layer in layers for branch in (((layer,), ()), ((), (layer,)))]


def whole_layers(setting: Setting) -> list[Branch]:
    return [((layer,), (layer,)) for layer in range(setting.model.config.num_hidden_layers)]


def greedy(setting: Setting, parts: list[Branch], damage: Damage, start: Kept | None = None) -> Iterator[Kept]:
    """What stays after each removal of the part that does least damage."""
    kept, left = start or everything(setting.model.config), list(parts)
    while left:
        damages = {part: damage(cut(setting.model, kept.without(*part))) for part in left}
        part = min(left, key=damages.__getitem__)
        left.remove(part)
        kept = kept.without(*part)
        yield kept
