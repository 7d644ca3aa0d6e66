"""Fingerprints: the same in every process with the same code, another one whenever what is computed may be another."""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.measure.fitness import classification
from autoprune.plugins import load_plugin
from autoprune.run.fingerprint.fingerprint import architecture, fingerprint

PLUGIN = '''
import functools

import torch
from helper import scaled  # beside this file

FACTOR = 2.0
WORDS = {"a", "b", "c"}


def fitness(model, batches, weight=1.0):
    """Documentation."""
    return weight * FACTOR * scaled(len(batches)) * len(WORDS)


class Fitness:
    def __init__(self, weight):
        self.weight = torch.full((2,), weight)
        self.options = {"b": {2, 1}, "a": [weight]}
        self.calls = 0

    def __call__(self, model, batches):
        self.calls += 1
        return float(self.weight.sum())

    def score(self, model, batches):
        return 1.0


def bound(weight=3):
    return lambda model, batches: weight * scaled(len(batches))


instance = Fitness(1.0)
partial = functools.partial(fitness, weight=2.0)
method = instance.score
closure = bound()
'''
HELPER = "def scaled(count):\n    return 3 * count\n"
PRINTED = """
import json
from autoprune.run.fingerprint.fingerprint import fingerprint
print(json.dumps([fingerprint(p) for p in (fitness, instance, partial, method, closure, Fitness)]))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is written twice in a second has one time

    def write(text=PLUGIN, helper=HELPER, name="mine"):
        (tmp_path / "helper.py").write_text(helper)
        (tmp_path / f"{name}.py").write_text(text)
        return tmp_path / f"{name}.py"

    return write


NAMES = ("fitness", "instance", "partial", "method", "closure", "Fitness")


def test_it_is_the_same_in_another_process_as_a_script_and_here_as_a_module_and_a_file(plugin, tmp_path, monkeypatch):
    script = plugin(PLUGIN + PRINTED, name="script")
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join((root, str(tmp_path)))}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    there = json.loads(done.stdout)
    assert all(there)
    monkeypatch.syspath_prepend(tmp_path)
    path = plugin()
    sys.modules.pop("helper", None)
    assert [fingerprint(getattr(importlib.import_module("mine"), name)) for name in NAMES] == there
    assert [fingerprint(load_plugin(f"{path}:{name}")) for name in NAMES] == there
    for name in ("mine", "helper"):
        del sys.modules[name]


def facts_of(path, name="fitness"):
    """The fingerprint of a plug-in in a file as it is now."""
    for module in [m for m in sys.modules if m == "helper" or m.startswith("autoprune_plugin_")]:
        del sys.modules[module]
    return fingerprint(load_plugin(f"{path}:{name}"))


def test_lines_comments_documentation_and_other_definitions_leave_it_the_same(plugin, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = {name: facts_of(plugin(), name) for name in ("fitness", "instance", "method", "closure")}
    changed = PLUGIN.replace('"""Documentation."""', "# what it does\n").replace(
        "\n\n\ndef", "\n\nOTHER = 1\n\n\n\n\ndef"
    )
    changed = (
        "# a comment\n"
        + changed.replace("weight * FACTOR", "(weight\n        * FACTOR)")
        + "\ndef other():\n    pass\n"
    )
    assert {name: facts_of(plugin(changed), name) for name in before} == before


CHANGES = {
    "the function": (PLUGIN.replace("len(WORDS)", "len(WORDS) + 1"), HELPER, "fitness"),
    "a default": (PLUGIN.replace("weight=1.0", "weight=1.5"), HELPER, "fitness"),
    "a global": (PLUGIN.replace("FACTOR = 2.0", "FACTOR = 2.5"), HELPER, "fitness"),
    "a set": (PLUGIN.replace('"c"}', '"d"}'), HELPER, "fitness"),
    "a module beside it": (PLUGIN, HELPER.replace("3", "4"), "fitness"),
    "a method": (PLUGIN.replace("float(self.weight.sum())", "float(self.weight.mean())"), HELPER, "instance"),
    "a tensor": (PLUGIN.replace("Fitness(1.0)", "Fitness(1.5)"), HELPER, "instance"),
    "an option": (PLUGIN.replace("weight=2.0", "weight=2.5"), HELPER, "partial"),
    "a bound method": (PLUGIN.replace("return 1.0", "return 1.5"), HELPER, "method"),
    "a closure": (PLUGIN.replace("weight=3", "weight=4"), HELPER, "closure"),
    "a lambda": (PLUGIN.replace("weight * scaled", "weight + scaled"), HELPER, "closure"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_changes_with(what, plugin, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text, helper, name = CHANGES[what]
    assert facts_of(plugin(), name) != facts_of(plugin(text, helper), name)


def test_what_is_imported_while_it_runs_counts(plugin, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    late = "def fitness(model, batches):\n    from helper import scaled\n    return scaled(1)\n"
    path = plugin(late)
    facts_of(path)
    __import__("helper")
    before = fingerprint(load_plugin(f"{path}:fitness"))
    del sys.modules["helper"]
    plugin(late, HELPER.replace("3", "5"))
    __import__("helper")
    assert fingerprint(load_plugin(f"{path}:fitness")) != before
    assert any("helper" in label for label in before)


def test_attributes_of_a_module_of_ones_own_are_followed_and_the_rest_of_it_is_not(plugin, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "import helper\n\n\ndef fitness(model, batches):\n    return helper.scaled(2)\n"
    before = facts_of(plugin(text))
    assert facts_of(plugin(text, HELPER + "\n\ndef unused():\n    return 1\n")) == before
    assert facts_of(plugin(text, HELPER.replace("3", "4"))) != before


def test_labels_say_what_is_meant():
    assert fingerprint(functools.partial(classification, report=["kl"])) == {"report": "list('kl')"}

    def fitness(model, batches, weight=1.0, *, table=None):
        return weight

    given = functools.partial(fitness, table=torch.arange(100))
    facts = fingerprint(given)
    assert facts["weight by default in test_labels_say_what_is_meant.fitness"] == "1.0"
    assert facts["table"].startswith("Tensor (100,) torch.int64 ")
    assert "source of test_labels_say_what_is_meant.fitness" in facts


def test_what_a_function_changes_while_it_runs_is_no_part_of_it():
    calls, seen, state, total = [], {}, {"n": 0}, 0
    counter = Counter()

    def fitness(model, batches):
        nonlocal total
        total += 1
        calls.append(1)
        seen["a"] = len(calls)
        state["n"] += 1
        counter.count()
        return 1.0

    before = fingerprint(fitness)
    fitness(None, None)
    assert total == counter.calls == 1
    assert fingerprint(fitness) == before
    counter.step = 2
    assert fingerprint(fitness) != before


class Counter:
    def __init__(self):
        self.calls, self.step = 0, 1

    def count(self):
        self.calls += self.step


def test_functions_that_know_each_other_and_lists_in_themselves_come_to_an_end():
    registry = {}

    def even(n):
        return n == 0 or registry["odd"](n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    registry |= {"even": even, "odd": odd}
    ring = [1]
    ring.append(ring)
    facts = fingerprint(functools.partial(even, ring=ring))
    assert facts["ring"] == "list(1, ...)"
    assert any(label.endswith("even") for label in facts)


def test_objects_without_a_representation_of_their_own_are_told_by_their_kind():
    facts = fingerprint(functools.partial(classification, a=object(), b=iter([1]), c=np.random.default_rng(0), d=open))
    assert facts == {"a": "object", "b": "list_iterator", "c": "Generator", "d": "open"}


def test_values_of_every_everyday_kind_differ_when_they_do():
    pairs = [
        (1, 1.0),
        (True, 1),
        ("1", 1),
        ([1, 2], (1, 2)),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        (np.zeros(3), np.ones(3)),
        (np.zeros(3), np.zeros(3, dtype=np.float32)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2), torch.zeros(2, 1)),
        (nn.Linear(2, 2), nn.Linear(2, 2)),
        (range(3), range(4)),
        (F.relu, F.gelu),
        (lambda x: x + 1, lambda x: x + 2),
        (functools.partial(F.leaky_relu, negative_slope=0.1), functools.partial(F.leaky_relu, negative_slope=0.2)),
    ]
    for left, right in pairs:
        a, b = (fingerprint(functools.partial(classification, given=[value])) for value in (left, right))
        assert a != b
    same = [fingerprint(functools.partial(classification, given=[value])) for value in ({3, 1, 2}, {2, 3, 1})]
    assert same[0] == same[1]


def test_tokens_and_passwords_are_no_part_of_it():
    for options in ({"token": "hf_abcdefghijkl"}, {"url": "postgresql://me:hunter2@db/x"}, {"api_key": "s3cr3t"}):
        facts = fingerprint(functools.partial(classification, **options))
        assert list(facts.values()) == ["***"]
    nested = fingerprint(functools.partial(classification, login={"password": "hunter2", "user": "me"}))
    assert nested == fingerprint(functools.partial(classification, login={"password": "other", "user": "me"}))


def test_an_installed_plugin_counts_with_its_package_and_version():
    facts = fingerprint(F.relu)
    assert facts["package"] == f"torch {torch.__version__}"
    assert "source of relu" in facts


class Block(nn.Module):
    def __init__(self, act=F.relu, stride=1):
        super().__init__()
        self.act, self.conv = act, nn.Conv2d(1, 2, 3, stride=stride)
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        return self.act(self.conv(x))


class Other(Block):
    def forward(self, x):
        return self.act(self.conv(x)) + 1


def test_the_architecture_changes_with_settings_classes_and_functions_and_not_with_weights_modes_and_counters():
    first, second = Block(), Block().eval()
    second(torch.zeros(1, 1, 3, 3))
    assert architecture(first) == architecture(second)
    others = (Block(F.gelu), Block(stride=2), Other(), Block(lambda x: x))
    assert len({json.dumps(architecture(model)) for model in (first, *others)}) == 5


def test_code_that_has_no_source_is_told_by_its_instructions():
    def made(text):
        space = {}
        exec(compile(textwrap.dedent(text), "<nowhere>", "exec"), {"__name__": "__main__"}, space)
        return fingerprint(space["f"])

    one = made("\n\n\ndef f(x):\n    return {'a', 'b'} & x")
    assert one == made("def f(x):\n    return {'a', 'b'} & x")
    assert one != made("def f(x):\n    return {'a', 'c'} & x")
    assert next(iter(one.values())).startswith("bytecode of Python 3.")
