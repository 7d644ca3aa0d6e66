"""State outside the module tree: what copies take along, what is refused with its name, and that nothing is changed."""

from __future__ import annotations

import copy
import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copying import copy_with
from autoprune.prune.passes.examples import as_examples
from autoprune.prune.surgery.alone import check_alone

FEATURES: dict[str, torch.Tensor] = {}
TABLES: dict[int, torch.Tensor] = {}
LOCAL = threading.local()
LAST: torch.Tensor | None = None


def image() -> torch.Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two convolutions and a head that also reads the features of the first one, from wherever they are kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.c2, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(14, 5, 1)
        self.keep()

    def keep(self) -> None: ...

    def features(self) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.c2(F.relu(self.c1(x))))
        return self.head(torch.cat([y, self.features()], 1))


class ClosureOverDict(Net):
    def keep(self) -> None:
        store: dict[str, Any] = {}
        self.store = store
        self.c1.register_forward_hook(lambda module, inputs, output: store.__setitem__("1", output))

    def features(self) -> torch.Tensor:
        return self.store["1"]


class ClosureOverSelf(Net):
    def keep(self) -> None:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.kept = [output]

        self.c1.register_forward_hook(hook)

    def features(self) -> torch.Tensor:
        return self.kept[0]


class BoundMethod(Net):
    def keep(self) -> None:
        self.c1.register_forward_hook(self.hook)

    def hook(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.kept = {"deep": (output,)}

    def features(self) -> torch.Tensor:
        return self.kept["deep"][0]


class Partial(Net):
    def keep(self) -> None:
        self.store: deque[torch.Tensor] = deque(maxlen=1)
        self.c1.register_forward_hook(functools.partial(self.hook, self.store))

    @staticmethod
    def hook(store: deque[torch.Tensor], module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        store.append(output)

    def features(self) -> torch.Tensor:
        return self.store[0]


class DefaultOfLambda(Net):
    def keep(self) -> None:
        self.store: dict[str, torch.Tensor] = {}
        self.c1.register_forward_hook(lambda module, inputs, output, store=self.store: store.update(a=output))

    def features(self) -> torch.Tensor:
        return self.store["a"]


class SharedByTwoClosures(Net):
    """What one hook writes another function reads, and no attribute leads to it."""

    def keep(self) -> None:
        store: dict[str, torch.Tensor] = {}
        self.c1.register_forward_hook(lambda module, inputs, output: store.update(a=output))
        self.reader = lambda: store["a"]

    def features(self) -> torch.Tensor:
        return self.reader()


class Nonlocal(Net):
    def keep(self) -> None:
        last = None

        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            nonlocal last
            last = output

        self.c1.register_forward_hook(hook)
        self.reader = lambda: last

    def features(self) -> torch.Tensor:
        return self.reader()


class WeakParent(Net):
    def keep(self) -> None:
        object.__setattr__(self.c1, "parent", weakref.ref(self))
        self.c1.register_forward_hook(self.hook)

    @staticmethod
    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        module.parent().kept = output  # type: ignore[operator]

    def features(self) -> torch.Tensor:
        return self.kept


@dataclass
class Memory:
    tensors: list[torch.Tensor]


class InDataclass(Net):
    def keep(self) -> None:
        self.memory = Memory([])
        self.c1.register_forward_hook(lambda module, inputs, output: setattr(self.memory, "tensors", [output]))

    def features(self) -> torch.Tensor:
        return self.memory.tensors[0]


class Extractor:
    """An object of its own that hooks into a network, as feature extractors do."""

    def __init__(self, layer: nn.Module) -> None:
        self.output: torch.Tensor | None = None
        layer.register_forward_hook(self.hook)

    def hook(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.output = output


class WithExtractor(Net):
    def keep(self) -> None:
        self.extractor = Extractor(self.c1)

    def features(self) -> torch.Tensor:
        assert self.extractor.output is not None
        return self.extractor.output


KEPT = [
    *(ClosureOverDict, ClosureOverSelf, BoundMethod, Partial, DefaultOfLambda, SharedByTwoClosures, Nonlocal),
    *(WeakParent, InDataclass, WithExtractor),
]


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.__name__)
def test_features_that_hooks_keep_are_those_of_the_same_run(kind: type[Net], used: bool) -> None:
    model = kind().eval()
    if used:
        model(torch.randn(1, 3, 8, 8))  # with a history: nothing is detached
    structure = autoprune.find_structure(model, image())
    assert [(unit.name, [s.tensor for s in unit.slots]) for unit in structure.units] == [
        ("c1", ["c1.weight", "c1.bias", "c2.weight", "head.weight"]),
        ("c2", ["c2.weight", "c2.bias", "head.weight"]),
    ]
    small = autoprune.shrink(model, structure, {"c1": [0, 2, 5]})
    assert autoprune.verify(model, small, structure, image()).ok
    other = torch.randn(1, 3, 8, 8)
    whole = autoprune.shrink(model, structure, 1.0)
    assert torch.equal(whole(other), model(other))
    assert small(other).isfinite().all()
    assert not torch.equal(small(other), small(image()))


@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.__name__)
def test_runs_of_a_copy_leave_what_the_model_keeps_alone(kind: type[Net]) -> None:
    model = kind().eval()
    model(torch.randn(1, 3, 8, 8))
    kept = model.features()
    before = kept.detach().clone()
    copied = copy_with(model, {})
    autoprune.shrink(model, autoprune.find_structure(model, image()), 0.5)(image())
    copied(image())
    assert model.features() is kept
    assert torch.equal(kept, before)
    assert copied.features() is not kept


class InGlobal(Net):
    def keep(self) -> None:
        self.c1.register_forward_hook(lambda module, inputs, output: FEATURES.update(a=output))

    def features(self) -> torch.Tensor:
        return FEATURES["a"]


class RebindsGlobal(Net):
    def keep(self) -> None:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            global LAST
            LAST = output

        self.c1.register_forward_hook(hook)

    def features(self) -> torch.Tensor:
        assert LAST is not None
        return LAST


class InClass(Net):
    history: list[torch.Tensor] = []  # noqa: RUF012

    def keep(self) -> None:
        self.c1.register_forward_hook(lambda module, inputs, output: self.history.append(output))

    def features(self) -> torch.Tensor:
        return self.history[-1]


class NewInClass(Net):
    def keep(self) -> None:
        self.c1.register_forward_hook(lambda module, inputs, output: setattr(type(self), "latest", output))

    def features(self) -> torch.Tensor:
        return type(self).latest  # type: ignore[attr-defined,no-any-return]


class InDefault(Net):
    def keep(self) -> None:
        self.c1.register_forward_hook(lambda module, inputs, output: self.features(output))

    def features(self, new: torch.Tensor | None = None, store: list[Any] = []) -> torch.Tensor:  # noqa: B006
        store += [new] if new is not None else []
        return store[-1]


class InThread(Net):
    def keep(self) -> None:
        self.c1.register_forward_hook(lambda module, inputs, output: setattr(LOCAL, "latest", output))

    def features(self) -> torch.Tensor:
        return LOCAL.latest  # type: ignore[no-any-return]


def made_by_a_factory() -> type[Net]:
    store: dict[str, torch.Tensor] = {}

    class Made(Net):
        def keep(self) -> None:
            self.c1.register_forward_hook(self.hook)

        def hook(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            store["a"] = output

        def features(self) -> torch.Tensor:
            return store["a"]

    return Made


OUTSIDE = {
    "global variable 'FEATURES' of test_alone": InGlobal,
    "global variable 'LAST' of test_alone": RebindsGlobal,
    "class attribute InClass.history": InClass,
    "attribute (of class NewInClass|NewInClass.latest)": NewInClass,
    r"default argument 'store' of InDefault.features \(test_alone.py": InDefault,
    "global variable 'LOCAL' of test_alone": InThread,
    r"closure variable 'store' of made_by_a_factory.<locals>.Made.\w+ \(test_alone.py": made_by_a_factory(),
}


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_features_kept_outside_the_tree_are_refused_with_the_name_of_the_place(name: str, used: bool) -> None:
    model = OUTSIDE[name]().eval()
    if used:
        model(torch.randn(1, 3, 8, 8))
    before = dict(vars(type(model))), list(InClass.history), dict(FEATURES), LAST
    with pytest.raises(
        UnsupportedModel, match=rf"state outside the module tree: .*{name}.* an attribute of the module"
    ):
        autoprune.find_structure(model, image())
    after = dict(vars(type(model))), list(InClass.history), dict(FEATURES), LAST
    assert str(before) == str(after)


class Table(nn.Module):
    """Looks up a table of constants that is made once, and kept in a global dictionary."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[-1]
        if n not in TABLES:
            TABLES[n] = torch.arange(n, dtype=x.dtype) / n
        return x + TABLES[n]


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_cache_of_constants_is_no_state(used: bool) -> None:
    TABLES.clear()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Table(), nn.Conv2d(8, 4, 3)).eval()
    if used:
        model(image())
    before = dict(TABLES)
    structure = autoprune.find_structure(model, image())
    assert [unit.name for unit in structure.units] == ["0"]
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, image()).ok
    assert {key: id(value) for key, value in before.items()} == {key: id(TABLES[key]) for key in before}


class Standardised(nn.Conv2d):
    """Keeps what it computed from its weights in a global dictionary, by its name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "weight" not in FEATURES:
            FEATURES["weight"] = self.weight / self.weight.norm()
        return F.conv2d(x, FEATURES["weight"])


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_cache_of_what_was_made_of_weights_is_refused(used: bool) -> None:
    FEATURES.clear()
    model = nn.Sequential(Standardised(3, 8, 3), nn.Conv2d(8, 4, 3)).eval()
    if used:
        model(image())
    with pytest.raises(UnsupportedModel, match="global variable 'FEATURES' of test_alone"):
        autoprune.find_structure(model, image())


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 3)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def scale(self, n: int) -> torch.Tensor:
        return torch.arange(n).float() / n

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.first(x)) * self.scale(x.shape[0])[:, None])


def test_a_cached_method_is_one_of_each_copy() -> None:
    model, x = Cached().eval(), torch.randn(5, 6)
    model(x)
    structure = autoprune.find_structure(model, x)
    assert [unit.name for unit in structure.units] == ["first"]
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, x).ok


NETWORK: list[nn.Module] = []


class ThroughGlobal(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(NETWORK[0].get_submodule("0")(x))


def test_code_that_reaches_the_original_through_a_global_is_refused_with_the_tensor() -> None:
    model = nn.Sequential(nn.Linear(6, 6), ThroughGlobal(), nn.Linear(6, 3)).eval()
    NETWORK[:] = [model]
    message = r"computes with '0\.(weight|bias)' of the original: .* global variable 'NETWORK' of test_alone"
    with pytest.raises(UnsupportedModel, match=message):
        autoprune.find_structure(model, torch.randn(2, 6))


class Clipped(nn.Linear):
    """Clips its own weights while it runs, as networks for EEG do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x)


def test_a_forward_that_writes_to_its_weights_leaves_those_of_the_users_model_alone() -> None:
    model, x = nn.Sequential(Clipped(6, 10), nn.ReLU(), Clipped(10, 3)).eval(), torch.randn(4, 6)
    before = copy.deepcopy(model.state_dict())
    structure = autoprune.find_structure(model, x)
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Bank(nn.Module):
    """Compares with the examples of earlier runs: no two runs need to agree."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 3)
        self.bank: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first(x))
        self.bank.append(y)
        return self.last(y + torch.stack(self.bank).mean(0))


class WrittenBank(Bank):
    """Writes each run's features and reads none of an earlier one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first(x))
        self.bank.append(y)
        return self.last(y)


def test_a_memory_that_earlier_runs_fill_is_a_state() -> None:
    model, x = Bank().eval(), torch.randn(4, 6)
    model(x * 2)
    with pytest.raises(UnsupportedModel, match="its forward is random or keeps a state"):
        autoprune.find_structure(model, x)


def test_a_memory_with_history_that_is_only_written_is_copied_and_left_as_it_was() -> None:
    model, x = WrittenBank().eval(), torch.randn(4, 6)
    model(x)
    bank, kept = model.bank, model.bank[0]
    structure = autoprune.find_structure(model, x)
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    assert model.bank is bank
    assert [id(tensor) for tensor in bank] == [id(kept)]
    assert len(small.bank) == 1


def test_a_users_list_that_a_hook_fills_is_filled_by_the_small_network_and_by_nothing_else() -> None:
    seen: list[int] = []
    model, x = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)).eval(), torch.randn(4, 6)
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    structure = autoprune.find_structure(model, x)
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    assert seen == []
    small(x)
    assert seen == [5]


def test_inputs_that_cannot_be_varied_are_said() -> None:
    model = nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 3)).eval()
    (example,) = as_examples(torch.zeros(1, 4, dtype=torch.long))
    notes = check_alone(model, example)
    assert notes == (
        "The model was compared with its copy on the example inputs of call 'forward' alone: they hold nothing but "
        "flags and integers that are all the same.",
    )
    assert check_alone(model, as_examples(torch.arange(4)[None])[0]) == ()


def locked() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 3))
    model[0].guard = threading.Lock()
    return model


@pytest.mark.parametrize("make", [locked])
def test_what_cannot_be_copied_is_named(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UnsupportedModel, match="in attribute 'guard' of module '0': cannot pickle"):
        autoprune.find_structure(make(), torch.randn(2, 6))
