"""The learning rate of each step."""

from __future__ import annotations

import math


def rate(step: int, steps: int, warmup: int) -> float:
    """The learning rate of a step (0-based) as a share of the highest one.

    It rises linearly over the first `warmup` steps, of which the last one has the full rate, and then falls along half
    a cosine, which would reach 0 at step `steps`.

    Source:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5, without restarts.
    """
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
