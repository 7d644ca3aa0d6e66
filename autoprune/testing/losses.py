"""Contract test of losses of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.testing.networks import small_batches, small_network
from autoprune.testing.sentences import keeping
from autoprune.testing.unchanged import changed_in, equal, same_process, state_of

if TYPE_CHECKING:
    from torch import nn

    from autoprune.measure.batch import Batch


def check_loss(
    loss: Callable[..., Any], model: nn.Module | None = None, batches: Sequence[Batch] | None = None
) -> None:
    """Checks that a loss of fine-tuning keeps its contract.

    A loss must return a finite scalar tensor, the same each time, whose gradient reaches the network. It must change
    neither the batch nor the network, and leave backward() to the training.

    Args:
        loss: a function (output, batch) -> loss, which gets the output of the network in train mode.
        model: a network to train; by default a small one.
        batches: labelled batches for `model`.

    Raises:
        AssertionError: the loss breaks its contract; the message says how, and what to do.
    """
    import torch

    from autoprune.prune.modules.copies import copy_model
    from autoprune.train.finetune import FineTune

    with keeping("the loss", "See docs/plugins.md#loss for what a loss must return."), same_process("the loss"):
        assert callable(loss), f"expected a function of (output, batch), got a {type(loss).__name__}"
        assert batches is None or batches, "expected at least one batch, got none. Leave `batches` out for small ones"
        plan = FineTune(1, loss=loss)
        network = copy_model(small_network() if model is None else model).train()
        for batch in small_batches() if batches is None else batches:
            own = batch.placed(torch.clone)
            output = network(*own.inputs)
            before = state_of(network)
            first = plan.loss_of(output, own)
            assert not (changed := changed_in(network, before)), (
                f"the loss changed {changed} of the network. Compute it from the output alone, and return it: training "
                "calls backward()"
            )
            second = plan.loss_of(output, own)
            assert torch.isfinite(first).all(), (
                f"expected a finite loss, got {first.item()}. Guard against log(0) and 0/0"
            )
            assert equal(first, second), f"expected the same loss each time, got {first.item()} and {second.item()}"
            kept = all(map(equal, own.inputs, batch.inputs)) and (own.target is None or equal(own.target, batch.target))
            assert kept, "the loss changed the batch in place: work on a clone() of what it changes"
            first.backward()  # type: ignore[no-untyped-call]
            reached = [p for p in network.parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
            assert reached, (
                "expected a loss whose gradient reaches the network, but all gradients are zero. Compute it from the "
                "output without detach(), argmax and comparisons"
            )
            network.zero_grad()
