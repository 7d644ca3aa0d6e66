"""How operators relate the axes of their tensors: one short function per kind, and the registry for users' rules."""

from autoprune.prune.structure.rules import elementwise, indexing, norms, products, sequences, shapes, spatial  # noqa: F401  # register
from autoprune.prune.structure.rules.registry import RULES, Rule, find_rule, rule
from autoprune.prune.structure.rules.sized import find_sized

__all__ = ["RULES", "Rule", "find_rule", "find_sized", "rule"]
