"""The dense network's class probabilities, kept as the most likely classes and the rest together.

Logits of a large vocabulary take half a megabyte a token. Of more than LARGEST_WHOLE classes only the MOST_LIKELY most
likely ones are kept, each with its log-probability, and the probability of all others together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

LARGEST_WHOLE = 8192  # largest number of classes whose logits are kept whole
MOST_LIKELY = 1024  # number of classes that are kept of more


class TopClasses(NamedTuple):
    """The most likely of `classes` classes, of logits of shape (..., classes).

    Attributes:
        indices: (..., k) the classes, int32.
        log_p: (..., k) their log-probabilities.
        log_rest: (...) the log-probability of the other classes together.
        classes: the number of all classes.
    """

    indices: torch.Tensor
    log_p: torch.Tensor
    log_rest: torch.Tensor
    classes: int

    @classmethod
    def of(cls, logits: torch.Tensor, count: int = MOST_LIKELY) -> TopClasses:
        """The `count` most likely classes of logits."""
        indices = logits.topk(count, dim=-1).indices
        return cls(indices.int(), *_grouped(logits.float(), indices), logits.shape[-1])

    def divergence(self, logits: torch.Tensor) -> torch.Tensor:
        """(...) The divergence of other logits in nats, over the kept classes and the rest as one class.

        It is at most that over all classes, since classes are taken together (log sum inequality), and 0 for equal
        logits.
        """
        log_q, log_rest = _grouped(logits.float(), self.indices.long())
        return _terms(self.log_p, log_q).sum(dim=-1) + _terms(self.log_rest, log_rest)


def _grouped(logits: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probabilities of the classes at the indices, and of all others together."""
    total = logits.logsumexp(dim=-1, keepdim=True)
    others = logits.scatter(-1, indices, -torch.inf).logsumexp(dim=-1)
    return logits.gather(-1, indices) - total, others - total.squeeze(-1)


def _terms(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """p (log p - log q), 0 where p is 0."""
    return torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))


def kept_classes(output: Any) -> Any:
    """What is kept of a network's logits: TopClasses of many classes, and any other output whole."""
    many = isinstance(output, torch.Tensor) and output.is_floating_point() and output.dim() > 1
    return TopClasses.of(output) if many and output.shape[-1] > LARGEST_WHOLE else output


def top_class(dense: Any) -> torch.Tensor:
    """(b,) the classes with the largest scores in a dense output of the form (b, classes)."""
    top: torch.Tensor = dense.indices[:, 0].long() if isinstance(dense, TopClasses) else dense.argmax(dim=1)
    return top


def number_of_classes(dense: Any) -> int:
    """The number of logits that a dense output holds for each example; 0 if it is not of the form (b, classes)."""
    if isinstance(dense, TopClasses):
        return dense.classes if dense.log_rest.dim() == 1 else 0
    logits = isinstance(dense, torch.Tensor) and dense.dim() == 2 and dense.is_floating_point()
    return int(dense.shape[1]) if logits else 0
