"""The contract of losses of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.testing.networks import changed_in, equal, small_batches, small_network, state_of
from autoprune.testing.sentences import keeping

if TYPE_CHECKING:
    from torch import nn

    from autoprune.measure.batch import Batch


def check_loss(
    loss: Callable[..., Any], model: nn.Module | None = None, batches: Sequence[Batch] | None = None
) -> None:
    """Raises AssertionError, with a sentence, where a loss of fine-tuning breaks its contract.

    It takes (output, batch), the output of the network in train mode, and returns a finite scalar tensor with a
    gradient that reaches the network, the same each time. It changes neither the batch nor the network.
    """
    import torch

    from autoprune.prune.modules.copies import copy_model
    from autoprune.train.finetune import FineTune

    with keeping("the loss", "See docs/plugins.md#loss for what a loss must return."):
        assert callable(loss), f"expected a function of (output, batch), got a {type(loss).__name__}"
        plan = FineTune(1, loss=loss)
        network = copy_model(small_network() if model is None else model).train()
        for batch in small_batches() if batches is None else batches:
            own = batch.placed(torch.clone)
            output = network(*own.inputs)
            before = state_of(network)
            first, second = plan.loss_of(output, own), plan.loss_of(output, own)
            assert torch.isfinite(first).all(), (
                f"expected a finite loss, got {first.item()}. Guard against log(0) and 0/0"
            )
            assert equal(first, second), f"expected the same loss each time, got {first.item()} and {second.item()}"
            assert not (changed := changed_in(network, before)), f"the loss changed the network's {changed}"
            kept = all(map(equal, own.inputs, batch.inputs)) and (own.target is None or equal(own.target, batch.target))
            assert kept, "the loss changed the batch in place: work on a clone() of what it changes"
            first.backward()  # type: ignore[no-untyped-call]
            reached = [p for p in network.parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
            assert reached, (
                "expected a loss whose gradient reaches the network, all gradients are zero. Compute it from the "
                "output without detach(), argmax and comparisons"
            )
            network.zero_grad()
