"""Where a forward pass is: the place of an operator call, and which pass it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """Where a forward pass calls an operator: in a module, at a line of the model's code, with certain parameters.

    A pass may come to a site any number of times: in a loop, or not at all where the data decide against it.
    """

    module: str
    operator: str
    line: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """A forward pass the structure holds for: the name of an example call, and the mode it runs in.

    `traced` is the index of the pass that was watched: this one's own, or that of an earlier one which runs the same
    operators on the same shapes in the same order, so that all that was found there holds here.
    """

    example: str = "forward"
    train: bool = False
    traced: int = 0

    @property
    def where(self) -> str:
        return f"call {self.example!r}" + (" in train mode" if self.train else "")
