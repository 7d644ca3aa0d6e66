"""Networks for 32 x 32 images, with weights from a file or random ones."""

from __future__ import annotations

from pathlib import Path

from autoprune.zoo.resnet import ResNet, build
from autoprune.zoo.weights import load_weights


def resnet20(weights: str | Path | None = None, classes: int = 10, seed: int = 0) -> ResNet:
    """ResNet-20 for 32 x 32 images: 269,722 parameters and 40,551,040 MACs with 10 classes. In eval mode.

    Args:
        weights: the path of a plain state dict, .pt or .safetensors, possibly as {"state_dict": ...} and with
            DataParallel's "module." before names; other pickles are refused. None for random weights.
        classes: the number of classes.
        seed: seed of random weights.

    Returns:
        The network.

    Raises:
        DataError: the file cannot be read.
        RecipeError: the weights belong to another network.
    """
    return _cifar_resnet(3, weights, classes, seed)


def resnet32(weights: str | Path | None = None, classes: int = 10, seed: int = 0) -> ResNet:
    """ResNet-32: 464,154 parameters. Arguments and errors as for `resnet20`."""
    return _cifar_resnet(5, weights, classes, seed)


def resnet44(weights: str | Path | None = None, classes: int = 10, seed: int = 0) -> ResNet:
    """ResNet-44: 658,586 parameters. Arguments and errors as for `resnet20`."""
    return _cifar_resnet(7, weights, classes, seed)


def resnet56(weights: str | Path | None = None, classes: int = 10, seed: int = 0) -> ResNet:
    """ResNet-56: 853,018 parameters and 125,485,696 MACs. Arguments and errors as for `resnet20`."""
    return _cifar_resnet(9, weights, classes, seed)


def resnet110(weights: str | Path | None = None, classes: int = 10, seed: int = 0) -> ResNet:
    """ResNet-110: 1,727,962 parameters. Arguments and errors as for `resnet20`."""
    return _cifar_resnet(18, weights, classes, seed)


def _cifar_resnet(n: int, weights: str | Path | None, classes: int, seed: int) -> ResNet:
    network = build(seed, lambda: ResNet((n, n, n), classes=classes))
    if weights is not None:
        load_weights(network, weights)
    return network
