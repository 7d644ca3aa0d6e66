"""Gradients of the calibration loss."""

from __future__ import annotations

import torch
from torch.nn import functional

from language_rivals.setting import Setting

NAMES = "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"


def weight_gradient_products(setting: Setting) -> list[dict[str, torch.Tensor]]:
    """For each layer, by name, every weight times the gradient of the mean calibration loss."""
    weights = [
        {name: getattr(layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp, name).weight for name in NAMES}
        for layer in setting.model.model.layers
    ]
    flat = [weight for layer in weights for weight in layer.values()]
    sums = [torch.zeros_like(weight) for weight in flat]
    for tokens in setting.calibrate:
        logits = setting.model(tokens).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        for total, gradient in zip(sums, torch.autograd.grad(loss, flat), strict=True):
            total += gradient / len(setting.calibrate)
    products = iter([weight.detach() * total for weight, total in zip(flat, sums, strict=True)])
    return [{name: next(products) for name in layer} for layer in weights]
