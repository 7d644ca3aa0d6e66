"""Positions in forward passes: the call site of an operator, and the pass itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallSite:
    """The place where a forward pass calls an operator: module, operator, line of the model's code, and parameters.

    A pass may reach a site any number of times: repeatedly in a loop, or never if that depends on data.
    """

    module: str
    operator: str
    line: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """A forward pass that the structure covers: the name of an example call, and the mode.

    `traced` is the index of the pass that was traced: this one's own, or that of an earlier one which runs the same
    operators on the same shapes in the same order, so that its findings apply here.
    """

    example: str = "forward"
    train: bool = False
    traced: int = 0

    @property
    def where(self) -> str:
        return f"call {self.example!r}" + (" in train mode" if self.train else "")
