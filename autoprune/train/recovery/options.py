"""The options of recovery: the training of a pruned network until it is deployed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from autoprune.core.options import LARGEST_OPTION, Option, option_problems, raise_problems, whole, word
from autoprune.measure.batch import Batch
from autoprune.plugins import plugin_name
from autoprune.train.finetune import Loss
from autoprune.train.recovery.augment import Augment

RECOVERY_LOSSES = ("distillation", "cross_entropy", "kl", "mimic")
LABELLED = ("distillation", "cross_entropy")  # losses that need targets
TAUGHT = ("distillation", "kl", "mimic")  # losses that compare with the dense network
PARTS = ("all", "norms_biases", "head", "lora", "mask_lora")
_OWN = "(network, dense, batches, options)"
AUGMENTATIONS = ("none", "flip_crop")

# (network, dense, batches of an epoch, options) -> a trained network, or None if the given one is trained
OwnTraining = Callable[[nn.Module, nn.Module | None, list[Batch], Any], nn.Module | None]


@dataclass(frozen=True)
class Recovery:
    """The options of the training that recovers a pruned network. One of `epochs` and `steps` is required.

    Attributes:
        epochs: the number of passes over the training examples.
        steps: the number of steps, each on one batch; instead of epochs.
        loss: the loss of a step. "cross_entropy" compares with the targets, "kl" with the dense network's class
            probabilities, "distillation" is their weighted sum, and "mimic" is the mean squared difference from the
            dense network's features, the input of the last layer before global pooling. Or a function (output, batch)
            -> scalar tensor, whose batch has the dense network's output for the same, augmented inputs as `dense`.
        features: whether the outputs of residual blocks are compared with the dense network's as well; each difference
            is weighted to have the value of the loss.
        train: what is trained: all parameters, norms_biases, the parameters of one dimension, head, the last layer, or
            adapters of low rank that are merged into the weights afterwards (lora), without changing zeros (mask_lora).
            Or a function (network, dense, batches, options) that trains the network, or returns a trained one.
        rank: rank of the adapters.
        alpha: what adapters are multiplied by, times their rank.
        optimizer: sgd, stochastic gradient descent with momentum, or adamw.
        lr: highest learning rate; it follows half a cosine after the warm-up.
        warmup: share of the steps over which the learning rate rises linearly.
        momentum: momentum of sgd.
        weight_decay: weight decay of weights; norms and biases have none.
        ema: decay of the exponential moving average of weights and buffers, which is measured and kept in place of the
            trained ones; 0 for none.
        label_smoothing: share of the target that is spread evenly over all classes.
        temperature: what logits are divided by in the KL, which is multiplied by its square.
        distill: share of the KL in the loss distillation; the cross entropy has the rest.
        batch_size: examples of a step.
        accumulate: number of parts of a step's batch whose gradients are added up; more need less memory.
        clip: largest norm of the gradient of a step; 0 for no limit.
        precision: number format of the passes; weights stay in float32.
        augment: random changes of the inputs: none, or flip_crop for images, or a function (batch) -> batch.
        evaluate: number of steps between two measurements on the selection set; None for one after every epoch.
        seed: seed of the order of examples, the augmentation and dropout.

    Raises:
        ConfigError: an option is out of bounds; the error lists all of them.
    """

    epochs: int | None = None
    steps: int | None = None
    loss: str | Loss = "distillation"
    features: Annotated[bool, Option("recover")] = False
    train: str | OwnTraining = "all"
    rank: Annotated[int, Option("recover", least=1, most=LARGEST_OPTION)] = 16
    alpha: Annotated[float, Option("recover", most=1e6)] = 32.0
    optimizer: Annotated[Literal["sgd", "adamw"], Option("recover")] = "sgd"
    lr: Annotated[float, Option("recover", most=1000)] = 0.01
    warmup: Annotated[float, Option("recover", most=0.9)] = 0.05
    momentum: Annotated[float, Option("recover", most=0.9999)] = 0.9
    weight_decay: Annotated[float, Option("recover", most=1000)] = 1e-4
    ema: Annotated[float, Option("recover", most=0.999999)] = 0.0
    label_smoothing: Annotated[float, Option("recover", most=0.99)] = 0.0
    temperature: Annotated[float, Option("recover", least=0.01, most=1000)] = 2.0
    distill: Annotated[float, Option("recover", most=1)] = 0.5
    batch_size: Annotated[int, Option("recover", least=1, most=LARGEST_OPTION)] = 64
    accumulate: Annotated[int, Option("recover", least=1, most=LARGEST_OPTION)] = 1
    clip: Annotated[float, Option("recover", most=1e9)] = 0.0
    precision: Annotated[Literal["float32", "bfloat16", "float16"], Option("recover")] = "float32"
    augment: str | Augment = "none"
    evaluate: int | None = None
    seed: Annotated[int, Option("recover", most=2**31 - 1)] = 0

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "steps": self.steps, "evaluate": self.evaluate}
        raise_problems(
            [
                *_one_length(self.epochs, self.steps),
                *(found for name, n in counts.items() if n is not None for found in whole(name, n, 1, LARGEST_OPTION)),
                *([] if callable(self.loss) else _choice("loss", self.loss, RECOVERY_LOSSES, "(output, batch)")),
                *(
                    []
                    if callable(self.train)
                    else _choice("train", self.train, PARTS, "(network, dense, batches, options)")
                ),
                *([] if callable(self.augment) else _choice("augment", self.augment, AUGMENTATIONS, "(batch)")),
                *option_problems(self),
                *_conflicts(self.loss, self.train, self.features),
            ]
        )

    def steps_of(self, per_epoch: int) -> int:
        """The number of steps, given the number of batches in an epoch."""
        if self.epochs is not None:
            return self.epochs * per_epoch
        assert self.steps is not None, "one of them is given"
        return self.steps

    def warmup_of(self, steps: int) -> int:
        """The number of steps of the warm-up, rounded up; at least one step comes after it."""
        return min(math.ceil(self.warmup * steps), steps - 1)

    @property
    def labelled(self) -> bool:
        """Whether the loss needs targets, as far as is known."""
        return self.loss in LABELLED

    @property
    def taught(self) -> bool:
        """Whether the dense network's output or features are computed in every step."""
        return callable(self.loss) or self.loss in TAUGHT or self.features

    def to_json(self) -> dict[str, Any]:
        """The options as plain values; functions by their names."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: plugin_name(value) if callable(value) else value for name, value in plain.items()}


def _one_length(epochs: object, steps: object) -> list[str]:
    if (epochs is None) != (steps is None):
        return []
    got = "neither" if epochs is None else f"epochs={epochs!r} and steps={steps!r}"
    return [f"expected either epochs or steps, got {got}. Give one of them, such as epochs=10."]


def _conflicts(loss: object, train: object, features: bool) -> list[str]:
    """Sentences on options that exclude each other."""
    if loss == "mimic" and train == "head":
        return ["train: expected a part before the last layer for the loss mimic, got head. Take kl or train all."]
    if loss == "mimic" and features:
        return ["features: expected false with the loss mimic, which compares features itself, got true."]
    return []


def _choice(name: str, value: object, known: tuple[str, ...], signature: str) -> list[str]:
    return [f"{problem}. Or give a function of {signature}." for problem in word(name, value, known)]
