"""Exponential moving averages of the tensors of a network in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autoprune.prune.modules.copying import cloned


class Averages:
    """The moving averages of floating-point parameters and buffers, by name.

    Tensors that are not finite at first, such as masks, are not averaged; the last ones are kept.

    Args:
        tensors: the tensors before the first step, with which the averages begin.
        most: the largest decay.

    Source:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; the exponential form is that
        of Tarvainen and Valpola, Mean Teachers, 2017, equation 2.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], most: float) -> None:
        self._most = most
        self.tensors = cloned({name: x for name, x in tensors.items() if x.is_floating_point()})
        self._copied = {name for name, x in self.tensors.items() if not bool(x.isfinite().all())}

    @torch.no_grad()
    def add(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Adds the tensors after a step (0-based): average = d average + (1 - d) tensor, with the decay d."""
        share = decay(step, self._most)
        for name, average in self.tensors.items():
            if name in self._copied:
                average.copy_(tensors[name])
            else:
                average.lerp_(tensors[name], 1 - share)


def decay(step: int, most: float) -> float:
    """The share of the average that a step (0-based) leaves: (1 + n) / (10 + n) after n steps, at most `most`.

    The weights of the first steps are forgotten sooner this way, so that short trainings can be averaged, too.
    """
    return min(most, (1 + step) / (10 + step))
