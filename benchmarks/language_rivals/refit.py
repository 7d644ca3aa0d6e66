"""Output projections fitted to the dense network's outputs by ridge regression."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from language_rivals.decoder import Kept, arguments, cut, input_masks, projections, reading
from language_rivals.setting import Setting


@torch.no_grad()
def refitted(setting: Setting, kept: Kept, ridge: float, *, sequential: bool) -> nn.Module:
    """The network of what is kept, fitted.

    Args:
        setting: the dense model and the calibration set.
        kept: what stays.
        ridge: the penalty of the distance to the dense weights, as a share of the mean squared input.
        sequential: takes the inputs of the network as fitted so far, instead of those of the dense network.
    """
    network = cut(setting.model, kept)
    masks = input_masks(setting.model, kept)
    if sequential:
        fit_in_turn(setting, network, masks, ridge)
        return network
    for dense, part, moments, mask in zip(
        projections(setting.model), projections(network), setting.moments, masks, strict=True
    ):
        fit(part, dense.weight, moments.square, moments.square @ dense.weight.double().T, mask, ridge)
    return network


def fit_in_turn(setting: Setting, network: nn.Module, masks: list[torch.Tensor], ridge: float) -> None:
    """Fits branch by branch, with the streams of both networks at the border of each layer."""
    given = arguments(setting.model, setting.calibrate[0])
    dense_stream = [setting.model.model.embed_tokens(tokens) for tokens in setting.calibrate]
    stream = list(dense_stream)
    for number, (dense, layer) in enumerate(zip(setting.model.model.layers, network.model.layers, strict=True)):
        for branch, find in enumerate((attention_output, mlp_output)):
            whole, part = find(dense), find(layer)
            square, cross = 0.0, 0.0
            for dense_x, x in zip(dense_stream, stream, strict=True):
                target, rows = input_of(whole, dense, dense_x, given), input_of(part, layer, x, given)
                square = square + (rows.T @ rows).double()
                cross = cross + (rows.T @ (target @ whole.weight.T)).double()
            fit(part, whole.weight, square, cross, masks[2 * number + branch], ridge)
        dense_stream = [dense(x, **given) for x in dense_stream]
        stream = [layer(x, **given) for x in stream]


def attention_output(layer: nn.Module) -> nn.Linear:
    return layer.self_attn.o_proj


def mlp_output(layer: nn.Module) -> nn.Linear:
    return layer.mlp.down_proj


def input_of(module: nn.Module, layer: nn.Module, stream: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    """The (tokens, columns) input of a module while its layer runs."""
    found: list[torch.Tensor] = []
    with reading([module], lambda number, x: found.append(x.flatten(0, 1))):
        layer(stream, **given)
    return found[0]


def fit(
    module: nn.Linear, dense: torch.Tensor, square: torch.Tensor, cross: torch.Tensor, mask: torch.Tensor, ridge: float
) -> None:
    """Sets a module's weight to the least-squares one on its kept columns; the penalty pulls to the dense weight.

    `square` are the (k, k) sums of x x', `cross` the (k, outputs) sums of x y'.
    """
    module.weight.data.zero_()
    if not mask.any():
        return
    penalty = ridge * square.diagonal().mean()
    inner = square[mask][:, mask] + penalty * torch.eye(int(mask.sum()), dtype=square.dtype)
    solved = torch.linalg.solve(inner, cross[mask] + penalty * dense.double().T[mask])
    module.weight.data[:, mask] = solved.T.to(module.weight.dtype)
