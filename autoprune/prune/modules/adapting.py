"""What module classes need beside sliced tensors: other forwards where theirs insist on sizes, and fixes after surgery.

Most classes need nothing: integers they keep are found and set by themselves (sizes.py). What an adapter computes is
compared with what its class computes before a network is analysed with it (adapted.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)
ADAPTERS: dict[type[nn.Module], type[nn.Module]] = {}
FIXES: dict[type[nn.Module], Callable[[nn.Module], None]] = {}


def adapter(original: type[nn.Module]) -> Callable[[type[Module]], type[Module]]:
    """Gives the instances of a module class another class, a subclass of it, when a network is analysed and pruned.

    The subclass has the same parameters and computes the same; an `adapt(self)` method, if there is one, is called once
    on an instance that has just got the class.
    """

    def register(subclass: type[Module]) -> type[Module]:
        ADAPTERS[original] = subclass
        return subclass

    return register


def fix(original: type[nn.Module]) -> Callable[[Callable[[nn.Module], None]], Callable[[nn.Module], None]]:
    """Registers what to do with a module of a class (or a subclass) after its tensors were sliced: put right what it
    keeps of their sizes where nobody can see it. A number that changes what is computed, such as a scale, is no such
    thing: it stays as it was trained, also in what the small network is compared with.

    >>> @autoprune.fix(Checked)
    ... def checked(module):
    ...     module.wanted["features"] = module.weight.shape[1]
    """

    def register(function: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
        FIXES[original] = function
        return function

    return register


def adapt(model: nn.Module, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Gives modules their adapter's class, in place: the named ones, or all that have one. Returns their names."""
    adapted = []
    for name in list(names) if names is not None else [name for name, _ in model.named_modules()]:
        module = model.get_submodule(name)
        if type(module) in ADAPTERS:
            module.__class__ = ADAPTERS[type(module)]
            getattr(module, "adapt", lambda: None)()
            adapted.append(name)
    return tuple(adapted)


def apply_fixes(model: nn.Module) -> None:
    """Calls every registered fix on the modules it is for, in place."""
    for module in model.modules():
        for original, function in FIXES.items():
            if isinstance(module, original):
                function(module)
