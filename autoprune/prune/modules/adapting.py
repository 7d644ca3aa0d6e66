"""Adapters and fixes for module classes: forwards that do not insist on sizes, and corrections after surgery.

Most classes need nothing: the integers that they keep are found and set automatically (sizes.py). An adapter is
compared with its class before a network is analysed with it (adapted.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)
ADAPTERS: dict[type[nn.Module], type[nn.Module]] = {}
FIXES: dict[type[nn.Module], Callable[[nn.Module], None]] = {}


def adapter(original: type[nn.Module]) -> Callable[[type[Module]], type[Module]]:
    """Registers a subclass that replaces a module class when a network is analysed and pruned.

    The subclass has the same parameters and computes the same; its `adapt(self)` method, if any, is called once on each
    instance whose class was replaced.

    Args:
        original: the module class to replace; its subclasses are not affected.

    Returns:
        A decorator for the subclass.
    """

    def register(subclass: type[Module]) -> type[Module]:
        ADAPTERS[original] = subclass
        return subclass

    return register


def fix(original: type[nn.Module]) -> Callable[[Callable[[nn.Module], None]], Callable[[nn.Module], None]]:
    """Registers a function that corrects a module of a class (or a subclass) after its tensors were sliced.

    It updates sizes that the module keeps where they cannot be found automatically. A number that changes the result,
    such as a scale, must stay as it was trained: it stays so in the masked reference, too.

    >>> @autoprune.fix(Checked)
    ... def checked(module):
    ...     module.wanted["features"] = module.weight.shape[1]

    Args:
        original: the module class.

    Returns:
        A decorator for the function, which gets the module.
    """

    def register(function: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
        FIXES[original] = function
        return function

    return register


def adapt(model: nn.Module, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Gives modules their adapter's class, in place: the named ones, or all that have one; returns their names."""
    adapted = []
    for name in list(names) if names is not None else [name for name, _ in model.named_modules()]:
        module = model.get_submodule(name)
        if type(module) in ADAPTERS:
            module.__class__ = ADAPTERS[type(module)]
            getattr(module, "adapt", lambda: None)()
            adapted.append(name)
    return tuple(adapted)


def apply_fixes(model: nn.Module) -> None:
    """Calls every registered fix on its modules, in place."""
    for module in model.modules():
        for original, function in FIXES.items():
            if isinstance(module, original):
                function(module)
