"""Rules, fixes and adapters of users, as the page about structure shows them, and that page's other examples."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
from networks import check_pruned, counted_params
from torch import nn

import autoprune
from autoprune.prune.modules import adapters, adapting  # noqa: F401  # the adapters there are
from autoprune.prune.structure.rules import RULES

PAGE = (Path(__file__).parents[3] / "docs" / "structure.md").read_text()
BLOCKS = {code.split("\n")[0].removeprefix("# "): code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}


@pytest.fixture(autouse=True)
def clean_registries():
    """What a test registers is gone after it."""
    registries = (RULES, adapting.ADAPTERS, adapting.FIXES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def run(name, names):
    """Runs a block of the page with some names given; returns all it defines."""
    space = {"__name__": name.removesuffix(".py"), "torch": torch, "nn": nn, "autoprune": autoprune, **names}
    exec(compile(BLOCKS[name], name, "exec", dont_inherit=True), space)
    return space


@functools.cache  # an operator can be defined once in a process
def shown(name):
    return run(name, {})


def between(module, inputs, outputs):
    """The module between two linear layers or two convolutions."""
    layer = nn.Linear if isinstance(module, nn.Linear) else functools.partial(nn.Conv2d, kernel_size=1)
    return nn.Sequential(layer(5, inputs), module, layer(outputs, 3)).eval()


def reasons(structure):
    return [row.reason for row in structure.frozen]


def widths(structure):
    return [unit.width for unit in structure.units]


def test_every_block_of_the_page_is_run_here_and_the_page_is_short():
    tested = Path(__file__).read_text()
    assert len(BLOCKS) == len(re.findall("```python", PAGE)) == 8
    assert all(f'"{name}"' in tested for name in BLOCKS)
    assert len(PAGE.splitlines()) <= 215


def test_the_first_example_prints_what_it_says(capsys):
    said = re.findall(r"^print\(.*\)  # (.*)$", BLOCKS["use.py"], re.MULTILINE)
    names = run("use.py", {})
    assert said == capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert counted_params(names["less"]) < counted_params(names["half"]) < counted_params(names["model"])


def test_the_example_with_named_inputs_runs():
    names = run("named_inputs.py", {})
    assert widths(names["structure"]) == [4, 6]
    assert (names["small"].num_heads, names["small"].head_dim) == (3, 3)


def test_an_operator_without_a_rule_freezes_what_it_touches_and_is_named():
    model = between(shown("my_gate.py")["Gate"](8), 8, 8)
    structure = autoprune.find_structure(model, torch.randn(2, 5, 4, 4))
    assert structure.units == ()
    assert structure.uncounted == ("mylib::scale_channels",)
    (told,) = re.findall("`(no rule for operator mylib::.*?)`", PAGE)
    assert any(told in reason for reason in reasons(structure))


def test_a_rule_makes_it_a_unit():
    model = between(shown("my_gate.py")["Gate"](8), 8, 8)
    run("my_rule.py", {})
    structure, small = check_pruned(model, torch.randn(2, 5, 4, 4), {8: 3})
    assert widths(structure) == [8]
    assert structure.frozen == structure.uncounted == ()
    assert small[1].scale.shape == (3,)


def test_a_rule_that_relates_too_little_is_found_out():
    @autoprune.rule("mylib::scale_channels")
    def nothing(recorder, call):
        return recorder.axes(call["x"])

    model = between(shown("my_gate.py")["Gate"](8), 8, 8)
    structure = autoprune.find_structure(model, torch.randn(2, 5, 4, 4))
    assert structure.units == ()
    assert any("does not run with fewer positions" in reason for reason in reasons(structure))


def test_a_rule_that_fails_freezes_what_it_touches_and_is_named():
    @autoprune.rule("mylib::scale_channels")
    def failing(recorder, call):
        return recorder.axes(call["y"])

    model = between(shown("my_gate.py")["Gate"](8), 8, 8)
    structure = autoprune.find_structure(model, torch.randn(2, 5, 4, 4))
    assert structure.units == ()
    assert any("the rule for operator mylib::scale_channels in '1'" in reason for reason in reasons(structure))


def test_a_module_that_keeps_a_number_nobody_sees_is_frozen_with_the_line():
    checked = shown("my_checked.py")["Checked"](12, 8)
    structure = autoprune.find_structure(between(checked, 12, 8), torch.randn(2, 5))
    assert widths(structure) == [8]
    (told,) = re.findall("`(does not run with fewer positions: ValueError .*?)`", PAGE)
    assert any(told == reason for reason in reasons(structure))


@pytest.mark.parametrize("subclass", [False, True])
def test_a_fix_sets_the_number_in_the_copy_alone_also_for_subclasses(subclass):
    original = shown("my_checked.py")["Checked"]
    run("my_fix.py", {"Checked": original})
    kind = type("Stricter", (original,), {}) if subclass else original
    model = between(kind(12, 8), 12, 8)
    structure, small = check_pruned(model, torch.randn(2, 5), {12: 7, 8: 3})
    assert widths(structure) == [12, 8]
    assert structure.frozen == ()
    assert (small[1].wanted, model[1].wanted) == ("7 features", "12 features")


class Scaled(nn.Linear):
    """A scale derived from the width: a float, which keeps no origin."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.scale = outputs**-0.5

    def forward(self, x):
        return super().forward(x) * self.scale


def test_a_number_that_changes_what_is_computed_stays_as_trained():
    structure, small = check_pruned(between(Scaled(12, 8), 12, 8), torch.randn(2, 5), {12: 7, 8: 3})
    assert widths(structure) == [12, 8]
    assert small[1].scale == 8**-0.5


def test_a_fix_that_changes_what_is_computed_is_found_out():
    @autoprune.fix(Scaled)
    def rescaled(module):
        module.scale = module.weight.shape[0] ** -0.5

    structure = autoprune.find_structure(between(Scaled(12, 8), 12, 8), torch.randn(2, 5))
    assert widths(structure) == [12]
    assert any("pruned and masked outputs differ" in reason for reason in reasons(structure))


def test_a_forward_that_insists_on_sizes_is_frozen_with_the_line():
    model = between(shown("my_votes.py")["Votes"](12, 24), 12, 8)
    structure = autoprune.find_structure(model, torch.randn(2, 5))
    assert 8 not in widths(structure)
    assert any("my_votes.py:4 has the fixed size 8" in reason for reason in reasons(structure))


def test_an_adapter_makes_it_a_unit_and_leaves_the_model_alone():
    original = shown("my_votes.py")["Votes"]
    free = run("my_adapter.py", {"Votes": original})["FreeVotes"]
    model = between(original(12, 24), 12, 8)
    structure, small = check_pruned(model, torch.randn(2, 5), {12: 7, 8: 3})
    assert sorted(widths(structure)) == [8, 12]
    assert structure.adapted == ("1",)
    assert (type(model[1]), type(small[1])) == (original, free)
    assert small[1].weight.shape == (9, 7)


def test_an_adapter_prepares_an_instance_once_for_every_copy():
    @autoprune.adapter(Scaled)
    class Prepared(Scaled):
        def adapt(self):
            self.prepared = getattr(self, "prepared", 0) + 1

    model = between(Scaled(12, 8), 12, 8)
    _, small = check_pruned(model, torch.randn(2, 5), {12: 7, 8: 3})
    assert type(small[1]) is Prepared
    assert small[1].prepared == 1
    assert not hasattr(model[1], "prepared")
