"""Mimicking without labels: a fitted network is trained to have the dense network's features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.measure.batch import Batch
from autoprune.train.examples import TrainingSet
from autoprune.train.recovery.blocks import Indices
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.options import Recovery

STEPS, SIZE = 1000, 64
CHANNELS = (1, 3)  # of images, which are flipped and cropped


@dataclass(frozen=True, eq=False)
class Mimicking:
    """A plan of mimicking on unlabelled examples. It is picklable and holds no network.

    The loss is the mean squared difference of the input of the last layer, before global pooling where there is one,
    from the dense network's for the same inputs. Images are flipped and cropped at random, for both networks alike.

    Source:
        Wang and Wu 2023 (Practical Network Acceleration with Tiny Sets, https://arxiv.org/abs/2202.07861, section 3).
        Departures: the network is fitted by least squares before; AdamW with a cosine instead of SGD in three steps;
        1,000 steps instead of 2,000.
    """

    examples: TrainingSet
    options: Recovery

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.options.steps_of(self.examples.per_epoch)

    @staticmethod
    def of(inputs: Sequence[tuple[torch.Tensor, ...]], steps: int = STEPS) -> Mimicking:
        """The plan for the calibration inputs. DataError if they cannot be joined."""
        first = inputs[0][0]
        is_image = first.dim() == 4 and first.shape[1] in CHANNELS and first.is_floating_point()
        augment = "flip_crop" if is_image else "none"
        options = Recovery(steps=steps, loss="mimic", optimizer="adamw", lr=2e-3, batch_size=SIZE, augment=augment)
        return Mimicking(TrainingSet.of([Batch(batch) for batch in inputs], size=SIZE), options)

    def mimicked(self, network: nn.Module, dense: nn.Module, kept: Indices, sparse: Collection[str] = ()) -> nn.Module:
        """A copy of a network after the training, in eval mode; `kept` are the positions of the dense network it keeps.

        Raises:
            TrainingDiverged: its weights or its loss are not finite.
            PluginError: the features of both networks cannot be compared.
        """
        return Recovering(network, dense, self.options, self.examples, kept, sparse).run().network
