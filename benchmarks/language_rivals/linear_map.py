"""ReplaceMe: successive layers removed, and a linear map in their place that goes into the MLP before them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from language_rivals.decoder import cut, streams
from language_rivals.depth import angle, without_layers
from language_rivals.setting import Pruned, Setting

RIDGES = 1e-6, 1e-3, 1e-1


def replace_me(setting: Setting) -> Iterator[Pruned]:
    """Removes the span of layers with the least angle between its ends, and maps the output of the MLP before it.

    Source:
        Shopkhoev et al., ReplaceMe, 2025, https://arxiv.org/abs/2505.02819: with the output M of that MLP and the
        stream h before and after the span, T = (M'M + l I)^-1 M'(h_after - h_before + M), and the weight of the MLP's
        output projection becomes T' W.
    """
    for first, after in spans(setting):
        for ridge in RIDGES:
            yield with_map(setting, first, after, ridge)


def removed_spans(setting: Setting) -> Iterator[Pruned]:
    """The same spans removed, without the map: what ReplaceMe is compared with.

    Source:
        Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, 2024, https://arxiv.org/abs/2403.17887.
    """
    for first, after in spans(setting):
        yield setting.pruned(without_layers(setting, range(first, after)), f"layers {first} to {after - 1}")


def spans(setting: Setting) -> list[tuple[int, int]]:
    """For each number of layers, the first of the best span after layer 0 and the layer that follows it."""
    borders = streams(setting.model, setting.calibrate)
    last = len(borders) - 1

    def change(span: tuple[int, int]) -> float:
        return float(angle(borders[span[0]], borders[span[1]]).mean())

    return [min(((i, i + n) for i in range(1, last - n + 1)), key=change) for n in range(1, last)]


@torch.no_grad()
def with_map(setting: Setting, first: int, after: int, ridge: float) -> Pruned:
    kept = without_layers(setting, range(first, after))
    network = cut(setting.model, kept)
    weight = network.model.layers[first - 1].mlp.down_proj.weight
    weight.copy_(linear_map(setting, first, after, ridge).T.to(weight.dtype) @ weight)
    options = f"layers {first} to {after - 1}, ridge {ridge:g}"
    return Pruned(network, setting.ratios(kept), options, kept)


def linear_map(setting: Setting, first: int, after: int, ridge: float) -> torch.Tensor:
    """(width, width) T in float64; `ridge` is a share of the mean diagonal of M'M."""
    borders = streams(setting.model, setting.calibrate)
    outputs = mlp_outputs(setting, first - 1).double()
    target = borders[after].double() - borders[first].double() + outputs
    square = outputs.T @ outputs
    square.diagonal().add_(ridge * square.diagonal().mean())
    return torch.linalg.solve(square, outputs.T @ target)


@torch.no_grad()
def mlp_outputs(setting: Setting, layer: int) -> torch.Tensor:
    """The (tokens, width) outputs of the MLP of a layer."""
    rows: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        rows.append(output.flatten(0, 1))

    handle = setting.model.model.layers[layer].mlp.register_forward_hook(keep)
    try:
        for tokens in setting.calibrate:
            setting.model.model(tokens)
    finally:
        handle.remove()
    return torch.cat(rows)
