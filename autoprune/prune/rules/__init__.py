"""How operators relate the axes of their tensors: one short function per kind, and where users add theirs."""

from autoprune.prune.rules import elementwise, indexing, norms, products, sequences, shapes, spatial  # noqa: F401  # register
from autoprune.prune.rules.registry import RULES, Rule, find_rule, rule
from autoprune.prune.rules.sized import find_sized

__all__ = ["RULES", "Rule", "find_rule", "find_sized", "rule"]
