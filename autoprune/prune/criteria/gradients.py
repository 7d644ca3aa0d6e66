"""Criteria of the loss: its first- and second-order change when a position is removed.

Without labels, the loss is the cross entropy with classes that the dense network itself predicts (loss.py). With its
own prediction as the class, a confident network has gradients near zero; only their order matters.
"""

from __future__ import annotations

import torch

from autoprune.prune.criteria.contract import UnitStatistics, UnitWeights, collected, needs


@needs("gradients")
def taylor(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The mean over batches of (sum_s g_s w_s)^2, with the sum over a position's producer weights s.

    Source:
        Molchanov et al. 2019 (https://arxiv.org/abs/1906.10771, first order, with the sum of a set of weights inside
        the square). Departure: there are no labels; the class is the dense network's own prediction.
    """
    return collected(statistics.gradients, "gradients").double().square().mean(dim=0)


@needs("gradients")
def undecayed(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The absolute mean over batches of sum_s g_s w_s, with the gradients of the loss without weight decay.

    If g are gradients of an objective with the weight decay lambda |w|^2 / 2, these are g - lambda w. They are
    collected from the loss alone, so there is nothing to subtract.

    Source:
        Good et al., Recall Distortion in Neural Network Pruning and the Undecayed Pruning Algorithm, 2022
        (https://arxiv.org/abs/2206.02976). Departures: there are no labels; the class is the dense network's own
        prediction. The network is not trained between removals.
    """
    return collected(statistics.gradients, "gradients").double().mean(dim=0).abs()


@needs("sample_gradients")
def fisher(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Half the mean over examples of (sum_s g_s w_s)^2, with the sum over a position's producer weights s.

    For a convolution this is half the mean squared gradient of a mask on the output channel before the bias is added.

    Source:
        Theis et al. 2018 (https://arxiv.org/abs/1801.05787); for coupled layers Liu et al. 2021
        (https://arxiv.org/abs/2108.00708). Departures: classes are drawn from the dense network's own output, so that
        this is the Fisher information instead of the empirical one; scores are not divided by a position's cost, as the
        search knows the costs.
    """
    return collected(statistics.sample_gradients, "sample_gradients").double().square().mean(dim=0) / 2


@needs("curvature")
def hap(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """trace(H_p) / (2 p) |w|^2, for the p producer weights w of a position and their Hessian H_p.

    Source:
        Hessian-aware pruning (Yu et al. 2022, https://arxiv.org/abs/2101.08940). Departure: there are no labels; the
        class is the dense network's own prediction.
    """
    curvature = collected(statistics.curvature, "curvature").double()
    squares = torch.stack([w.double().square().sum(dim=1) for w in weights.producers]).sum(dim=0)
    return curvature / (2 * sum(w.shape[1] for w in weights.producers)) * squares
