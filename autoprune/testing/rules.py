"""Contract tests of extensions of the structure: rules of operators, and adapters and fixes of module classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoprune.core.unit import Unit
from autoprune.testing.sentences import keeping

if TYPE_CHECKING:
    from torch import nn

    from autoprune.prune.passes.examples import Examples
    from autoprune.prune.structure.structure import Structure

ENDS = {"model input", "model output"}  # the only reasons for frozen parts that are admissible


def check_rule(operator: str, model: nn.Module, example: Examples) -> None:
    """Checks that the rule of an operator keeps its contract.

    With the rule, only the network's input and output may stay whole, the multiply-accumulates of the operator must be
    counted, and the pruned network must compute what the masked one computes.

    Args:
        operator: the name that the rule is registered under, such as "lib::op".
        model: a network that calls the operator between layers that can be pruned.
        example: one or several example calls of `model`.

    Raises:
        AssertionError: the rule breaks its contract; the message says how, and what to do.
    """
    from autoprune.prune.find import find_structure
    from autoprune.prune.structure.rules import RULES

    with keeping("the rule", "See docs/structure.md#a-rule-for-an-operator for what a rule must return."):
        assert operator in RULES, (
            f"expected a rule for the operator {operator!r}, but none is registered. Put @autoprune.rule({operator!r}) "
            "above a function of (recorder, call), and import its file first"
        )
        called = _called(model, example)
        assert operator in called, (
            f"expected a network that calls the operator {operator!r}, but this one calls {', '.join(sorted(called))}"
        )
        structure = find_structure(model, example)
        reasons = [part.reason for part in structure.frozen if not set(part.reason.split("; ")) <= ENDS]
        reasons.sort(key=lambda reason: operator not in reason)  # a reason that names the operator says most
        assert not reasons, f"expected nothing to stay whole because of {operator!r}, got: {reasons[0]}"
        assert operator not in structure.uncounted, (
            f"expected the multiply-accumulates of {operator!r} to be counted, but they are not. Contract its axes"
        )
        _check_pruned(model, structure, example, structure.units)


def _called(model: nn.Module, example: Examples) -> set[str]:
    """The names of the operators that the network calls, as rules are registered under them."""
    from autoprune.prune.passes.compare import outputs
    from autoprune.prune.passes.examples import as_examples
    from autoprune.prune.passes.watch import Execute, OperatorWatch

    class Names(OperatorWatch):
        def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
            names.add(name)
            return execute(arguments)

    names: set[str] = set()
    for each in as_examples(example):
        outputs(model, each, Names())
    return names


def check_adapter(kind: type[nn.Module], model: nn.Module, example: Examples) -> None:
    """Checks that the adapter of a module class keeps its contract.

    With the adapter, units of the module can be pruned, the adapter computes what the class computes, and the pruned
    network computes what the masked one computes.

    Args:
        kind: the module class that the adapter is registered for.
        model: a network with a module of this class between layers that can be pruned.
        example: one or several example calls of `model`.

    Raises:
        AssertionError: the adapter breaks its contract; the message says how, and what to do.
    """
    from autoprune.prune.modules import adapters  # noqa: F401  # registers the built-in adapters
    from autoprune.prune.modules.adapting import ADAPTERS

    with keeping("the adapter", "See docs/structure.md#an-adapter-for-a-module for what an adapter must do."):
        assert kind in ADAPTERS, (
            f"expected an adapter for {kind.__name__}, but none is registered. Put "
            f"@autoprune.adapter({kind.__name__}) above a subclass of it, and import its file first"
        )
        _check_module(kind, model, example)


def check_fix(kind: type[nn.Module], model: nn.Module, example: Examples) -> None:
    """Checks that the fix of a module class keeps its contract.

    With the fix, units of the module can be pruned, and the pruned network computes what the masked one computes.

    Args:
        kind: the module class that the fix is registered for.
        model: a network with a module of this class between layers that can be pruned.
        example: one or several example calls of `model`.

    Raises:
        AssertionError: the fix breaks its contract; the message says how, and what to do.
    """
    from autoprune.prune.modules.adapting import FIXES

    with keeping("the fix", "See docs/structure.md#a-fix-for-a-module for what a fix must do."):
        assert kind in FIXES, (
            f"expected a fix for {kind.__name__}, but none is registered. Put @autoprune.fix({kind.__name__}) above a "
            "function of a module, and import its file first"
        )
        _check_module(kind, model, example)


def _check_module(kind: type[nn.Module], model: nn.Module, example: Examples) -> None:
    from autoprune.prune.find import find_structure
    from autoprune.prune.modules.skip import within

    names = [name for name, module in model.named_modules() if isinstance(module, kind)]
    assert names, f"expected a network with a {kind.__name__} in it, but there is none. Pass one that calls it"
    structure = find_structure(model, example)
    units = [unit for unit in structure.units if "" in names or any(within(m, names) for m in unit.modules)]
    reasons = "; ".join(part.reason for part in structure.frozen) or "no unit touches it"
    assert units, f"expected units of {names[0]!r} that can be pruned, but there are none: {reasons}"
    _check_pruned(model, structure, example, units)


def _check_pruned(model: nn.Module, structure: Structure, example: Examples, units: Sequence[Unit]) -> None:
    """Asserts that the network with half of the positions of each unit computes what the masked one computes."""
    from autoprune.prune.shrink import shrink, verify

    chosen = [unit for unit in units if not unit.is_branch]
    assert chosen, (
        "expected a network with units that can be pruned, but there are none. Put layers before and after the "
        "operator or module"
    )
    for unit in chosen:
        count = unit.allowed(math.ceil(unit.width / 2))
        kept = np.sort(np.random.default_rng(0).permutation(unit.width)[:count]).tolist()
        report = verify(model, shrink(model, structure, {unit.name: kept}), structure, example)
        assert report.ok, (
            f"expected the network with {count} of {unit.width} positions of {unit.name!r} to compute what the masked "
            f"network computes, but they differ by {report.worst:.2g} of the largest output. Relate all axes that "
            "belong together"
        )
