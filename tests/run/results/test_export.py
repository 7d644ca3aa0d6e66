"""Exports: what was damaged, mixed up or made for another network is refused, and nothing is left half written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import RecipeError, RunExists
from autoprune.prune.find import find_structure
from autoprune.prune.modules.copying import model_digest, named_tensors
from autoprune.prune.surgery.surgery import cut, make_recipe
from autoprune.run.results.export import RecipeExporter
from autoprune.run.results.exporter import ExportFacts
from autoprune.run.results.probe import UNCHECKED
from autoprune.run.results.publishing import write_export
from autoprune.run.results.recipe_file import sealed


@pytest.fixture
def compensation():
    return "sequential"


def export_to(folder, network, facts, example):
    write_export(network, facts, example, folder, RecipeExporter())


class Config(SimpleNamespace):
    """Numbers in an object of their own."""


class Net(nn.Module):
    """Convolution, attention and normalisation: sizes in plain attributes, in tuples and in a config."""

    step = 7  # of the class

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8, 12, 3, padding=1)
        self.settled = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.head = nn.Linear(12, 4)
        self.pairs = (2, 5)
        self.config = Config(width=12)

    def act(self, x):
        return F.relu(x)

    def forward(self, x):
        x = self.mix(self.act(self.norm(self.stem(x))))
        x = self.settled(x.flatten(2).transpose(1, 2))
        return self.head(self.act(x + self.attention(x, x, x)[0]).mean(1))

    @property
    def width(self):
        return 12


class WithTanh(Net):
    def act(self, x):
        return torch.tanh(x)


class Strided(Net):
    def __init__(self):
        super().__init__()
        self.mix.stride = (2, 2)


EXAMPLE = (torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(3)),)


def trained(seed=0, kind=Net):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind().eval()
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return network


def write(folder, model, example=EXAMPLE, keep=2 / 3):
    structure = find_structure(model, example)
    positions = {u.name: np.arange(u.allowed(round(keep * u.width))) for u in structure.units}
    small = cut(model, structure, positions)
    export_to(folder, small, ExportFacts(model, make_recipe(structure, positions), {"accuracy": 0.5}), example)
    return small


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two exports of one class, and what the first of them computes."""
    folder = tmp_path_factory.mktemp("exports")
    small = write(folder / "small", trained())
    write(folder / "other", trained(1))
    return SimpleNamespace(small=folder / "small", other=folder / "other", output=small(*EXAMPLE).detach())


# Each of these changes an export in a folder; `anew` and `resealed` put its checksums right again, as somebody would
# who knows how they are made.


def flip(name, at, bit=6):
    def change(folder, written):
        content = bytearray((folder / name).read_bytes())
        content[int(at * (len(content) - 1))] ^= 1 << bit
        (folder / name).write_bytes(content)

    return change


def cut_off(name, share):
    def change(folder, written):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def put(name, content):
    return lambda folder, written: (folder / name).write_bytes(content)


def gone(name):
    return lambda folder, written: (folder / name).unlink()


def taken(name):
    return lambda folder, written: shutil.copy(written.other / name, folder / name)


def edited(edit, seal=sealed):
    def change(folder, written):
        document = json.loads((folder / "recipe.json").read_text())
        changed = edit(document)
        document = document if changed is None else changed
        (folder / "recipe.json").write_text(json.dumps(seal(document)))

    return change


def resealed(**values):
    return edited(lambda document: document.update(values))


def size(module, path, number):
    return edited(lambda document: document["sizes"].setdefault(module, {}).update({path: number}))


def anew(edit):
    """The weights changed, with their own checksum and the recipe's put right."""

    def change(folder, written):
        tensors = edit(load_file(folder / "weights.safetensors"))
        content = tensors if isinstance(tensors, bytes) else save({n: t.contiguous() for n, t in tensors.items()})
        (folder / "weights.safetensors").write_bytes(content)
        resealed(weights_sha256=hashlib.sha256(content).hexdigest())(folder, written)

    return change


def with_other_weights(folder, written):
    taken("weights.safetensors")(folder, written)
    content = (folder / "weights.safetensors").read_bytes()
    resealed(weights_sha256=hashlib.sha256(content).hexdigest())(folder, written)


def one_flipped(tensors):
    values = tensors["head.weight"]
    values.view(torch.int32)[0, 0] ^= 1 << 29
    return tensors


DEEP = b"[" * 100_000 + b"]" * 100_000
WORDS = ("class", "dense_shapes", "adapted", "sizes", "skipped", "weights_sha256", "probe", "checksum", "format")
TAMPERED = {
    **{f"weights bit at {at}": flip("weights.safetensors", at) for at in (0, 0.001, 0.01, 0.2, 0.4, 0.6, 0.8, 1)},
    **{f"recipe bit at {at}": flip("recipe.json", at, 1) for at in (0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9)},
    **{f"weights cut to {share}": cut_off("weights.safetensors", share) for share in (0, 0.001, 0.5, 0.99)},
    **{f"recipe cut to {share}": cut_off("recipe.json", share) for share in (0, 0.5, 0.99)},
    **{f"{name} gone": gone(name) for name in ("recipe.json", "weights.safetensors")},
    **{f"{name} of another export": taken(name) for name in ("recipe.json", "weights.safetensors")},
    **{f"without {word}": edited(lambda d, w=word: d.pop(w) and None) for word in WORDS[:-2]},
    **{f"{word} not resealed": edited(lambda d, w=word: d.update({w: 1}), dict) for word in WORDS},
    "recipe not UTF-8": put("recipe.json", b"\xff\xfe{}"),
    "recipe too deep": put("recipe.json", DEEP),
    "recipe a number": put("recipe.json", b"9" * 5000),
    "recipe a list": put("recipe.json", b"[]"),
    "recipe empty": put("recipe.json", b"{}"),
    "recipe with a key twice": put("recipe.json", b'{"format": 3, "format": 3}'),
    "recipe NaN": put("recipe.json", b'{"format": NaN}'),
    "weights of another export, resealed": with_other_weights,
    "weights, a bit, resealed": anew(one_flipped),
    "weights, zeros, resealed": anew(lambda t: {n: torch.zeros_like(x) for n, x in t.items()}),
    "weights, rows swapped, resealed": anew(lambda t: t | {"head.weight": t["head.weight"].flip(0)}),
    "weights, another type, resealed": anew(lambda t: t | {"head.weight": t["head.weight"].to(torch.int64)}),
    "weights, a key more, resealed": anew(lambda t: t | {"extra": torch.zeros(1)}),
    "weights, a key less, resealed": anew(lambda t: {n: x for n, x in t.items() if n != "head.bias"}),
    "weights, another shape, resealed": anew(lambda t: t | {"head.weight": t["head.weight"].reshape(-1)}),
    "weights, larger, resealed": anew(lambda t: t | {"head.weight": torch.zeros(40, 12)}),
    "weights, no safetensors, resealed": anew(lambda t: b"PK\x03\x04 not safetensors"),
    "another class": resealed(**{"class": "torchvision.models.resnet:ResNet"}),
    "a class that is no text": resealed(**{"class": ["Net"]}),
    "format 99": resealed(format=99),
    "format true": resealed(format=True),
    "format 2 with checksums": resealed(format=2),
    "shapes of words": edited(lambda d: d["dense_shapes"].update({"stem.weight": ["a", 3]})),
    "negative shapes": edited(lambda d: d["dense_shapes"].update({"stem.weight": [-8, 3, 3, 3]})),
    "shapes of another network": edited(lambda d: d["dense_shapes"].update({"stem.weight": [9, 3, 3, 3]})),
    "adapted that is not there": resealed(adapted=["nowhere"]),
    "adapted of another kind": resealed(adapted=["stem"]),
    "adapted a text": resealed(adapted="attention"),
    "not adapted": resealed(adapted=[]),
    "skipped that is not there": resealed(skipped={"nowhere": 0}),
    "skipped the whole": resealed(skipped={"": 0}),
    "skipped a layer": resealed(skipped={"mix": 0}),
    "skipped a huge tuple": resealed(skipped={"attention": 10**9}),
    "sizes of a module that is not there": size("nowhere", "num_features", 2),
    "sizes a list": resealed(sizes=[]),
    "a size of the base class": size("", "__class__.__base__.__call__", 5),
    "a size of the class": size("", "step", 5),
    "a size through the class": size("", "__class__.step", 5),
    "a size that is a method": size("", "forward", 5),
    "a size that is a property": size("", "width", 5),
    "a private size": size("", "_version", 0),
    "a size of the modules": size("", "_modules.head", 0),
    "a size through a module": size("", "head.in_features", 0),
    "a size that is new": size("head", "novel", 5),
    "a size that is a flag": size("", "training", 1),
    "a size that is a module": size("", "stem", 5),
    "a size beyond the end": size("settled", "normalized_shape[4]", 5),
    "a size of a part of an integer": size("head", "out_features[0]", 1),
    "a size in half a path": size("head", "out_features..", 1),
    "a size that is a text": size("head", "out_features", "4"),
    "a size that is no whole number": size("head", "out_features", 4.5),
    "a size that is a list": size("settled", "normalized_shape", [8]),
    "a huge size": size("head", "out_features", 10**30),
    "a negative size": size("head", "out_features", -1),
    "a larger size": size("head", "out_features", 5),
    "a wrong size of a head": size("attention", "head_dim", 1),
    "a wrong number of groups": size("stem", "groups", 0),
    "a probe of another kind": resealed(probe={"inputs": []}),
    "a probe with words": edited(lambda d: d["probe"]["inputs"][0].update(dtype="load")),
    "a probe of another shape": edited(lambda d: d["probe"]["inputs"][0].update(shape=[1, 4, 6, 6])),
    "a probe with other outputs": edited(lambda d: d["probe"]["outputs"].pop()),
}


def test_there_are_enough_of_them():
    assert len(TAMPERED) >= 90


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_export_does_not_load_and_leaves_the_model_as_it_is(how, written, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(written.small, folder)
    TAMPERED[how](folder, written)
    fresh = trained(5).train()
    before, state, slots = model_digest(fresh), vars(nn.Module).copy(), vars(Net).copy()
    with pytest.raises(RecipeError, match=re.escape(str(tmp_path))):
        autoprune.load(fresh, folder)
    assert model_digest(fresh) == before
    assert fresh.training
    assert fresh.config.width == 12
    assert (vars(nn.Module), vars(Net)) == (state, slots)


@pytest.mark.parametrize("kind", [WithTanh, Strided])
def test_another_class_is_refused_by_its_name_and_by_what_it_computes(kind, written):
    with pytest.raises(RecipeError, match=r"was exported from a test_export:Net, got a test_export:.*any_class=True"):
        autoprune.load(trained(kind=kind), written.small)
    with pytest.raises(RecipeError, match="does not compute what it did when it was exported: its output 0 differs by"):
        autoprune.load(trained(kind=kind), written.small, any_class=True)
    autoprune.load(trained(kind=kind), written.small, any_class=True, any_output=True)


def test_another_activation_or_padding_under_the_same_name_is_refused(written):
    changed = trained()
    changed.act = torch.tanh
    with pytest.raises(RecipeError, match="does not compute"):
        autoprune.load(changed, written.small)
    padded = trained()
    padded.stem.padding_mode = "circular"
    padded.stem._reversed_padding_repeated_twice = [1, 1, 1, 1]
    with pytest.raises(RecipeError, match="does not compute"):
        autoprune.load(padded, written.small)


def test_what_loads_is_what_was_exported_in_eval_mode_whatever_mode_the_model_is_in(written):
    for fresh in (trained(4).train(), trained(4).eval()):
        small = autoprune.load(fresh, written.small)
        assert not any(module.training for module in small.modules())
        assert torch.equal(small(*EXAMPLE), written.output)


def test_a_class_under_another_name_loads_when_asked(written):
    alias = type("Renamed", (Net,), {})
    with pytest.raises(RecipeError, match="any_class=True"):
        autoprune.load(trained(kind=alias), written.small)
    assert torch.equal(autoprune.load(trained(kind=alias), written.small, any_class=True)(*EXAMPLE), written.output)


def test_a_class_that_was_in_a_file_of_its_own_is_known_in_its_package(written, tmp_path, monkeypatch):
    shutil.copytree(written.small, tmp_path / "small")
    monkeypatch.setattr(Net, "__module__", "project.models.test_export")
    autoprune.load(trained(), tmp_path / "small")
    monkeypatch.setattr(Net, "__module__", "latest_export")
    with pytest.raises(RecipeError, match="any_class=True"):
        autoprune.load(trained(), tmp_path / "small")


def as_before(folder, number=2):
    """An export as it was written before there were checksums."""
    document = json.loads((folder / "recipe.json").read_text())
    old = {name: value for name, value in document.items() if name not in ("weights_sha256", "probe", "checksum")}
    (folder / "recipe.json").write_text(json.dumps({**old, "format": number, "class": "Net"}))


@pytest.mark.parametrize("number", [1, 2])
def test_an_export_of_an_earlier_version_loads_with_a_warning(written, tmp_path, caplog, number):
    shutil.copytree(written.small, tmp_path / "small")
    as_before(tmp_path / "small", number)
    assert torch.equal(autoprune.load(trained(4), tmp_path / "small")(*EXAMPLE), written.output)
    assert "was written by an earlier autoprune: it has no checksums" in caplog.text
    size("", "__class__.__base__.__call__", 5)
    with pytest.raises(RecipeError, match="any_class"):
        autoprune.load(trained(kind=WithTanh), tmp_path / "small")


class Tokens(nn.Module):
    """Integers in, a mapping with a tuple out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, tokens, mask):
        x = self.down(F.gelu(self.up(self.embedding(tokens)))) * mask[..., None]
        return {"logits": x, "more": (x.argmax(-1), None)}


class Scaled(Tokens):
    def forward(self, tokens, mask):
        return {"logits": 2 * super().forward(tokens, mask)["logits"], "more": ()}


def test_networks_of_tokens_and_masks_with_outputs_in_mappings_are_probed(tmp_path, caplog):
    example = (torch.tensor([[0, 10, 3, 4]]), torch.ones(1, 4))
    small = write(tmp_path / "small", trained(kind=Tokens), example)
    again = autoprune.load(trained(2, Tokens), tmp_path / "small")
    assert torch.equal(again(*example)["logits"], small(*example)["logits"])
    probe = json.loads((tmp_path / "small" / "recipe.json").read_text())["probe"]
    assert [one["shape"] for one in probe["outputs"]] == [[1, 4, 3], [1, 4]]
    with pytest.raises(RecipeError, match="it returns 1 tensors, not 2"):
        autoprune.load(trained(2, Scaled), tmp_path / "small", any_class=True)
    assert not caplog.text


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(F.relu(self.a(x))) * torch.rand(())


class Choosy(Random):
    def forward(self, x):
        if not bool((x == 1).all()):
            raise ValueError("expected ones")
        return self.b(F.relu(self.a(x)))


@pytest.mark.parametrize(
    ("kind", "why"), [(Random, "its output is random or depends"), (Choosy, "it does not run on random inputs")]
)
def test_a_network_that_cannot_be_probed_says_so_in_its_recipe_and_when_it_is_loaded(kind, why, tmp_path, caplog):
    network = trained(kind=kind)
    example = (torch.tensor([[1.0, 2, 3, 4, 5, 6]]),)
    recipe = make_recipe(find_structure(trained(kind=Plain), example), {})
    export_to(tmp_path / "a", network, ExportFacts(network, recipe, {}), example)
    assert why in json.loads((tmp_path / "a" / "recipe.json").read_text())["probe"][UNCHECKED]
    caplog.clear()
    autoprune.load(trained(3, kind), tmp_path / "a")
    assert f"is not checked: {why}" in caplog.text


class Plain(Random):
    def forward(self, x):
        return self.b(F.relu(self.a(x)))


def test_half_precision_networks_are_probed(tmp_path):
    network = trained(kind=Plain).bfloat16()
    example = (torch.ones(1, 6, dtype=torch.bfloat16),)
    recipe = make_recipe(find_structure(network, example), {})
    export_to(tmp_path / "a", network, ExportFacts(network, recipe, {}), example)
    small = autoprune.load(trained(3, Plain).bfloat16(), tmp_path / "a")
    assert named_tensors(small)["a.weight"].dtype == torch.bfloat16
    with pytest.raises(RecipeError, match="does not compute"):
        autoprune.load(trained(3, Doubling).bfloat16(), tmp_path / "a", any_class=True)


class Described(Plain):
    """Keeps its width where the forward never reads it, as libraries of models do for those who replace the head."""

    def __init__(self):
        super().__init__()
        self.num_features = self.a.out_features
        self.feature_info = [{"num_chs": self.a.out_features, "module": "a"}]


def test_widths_in_lists_of_dictionaries_follow_into_exports(tmp_path):
    network = trained(kind=Described)
    small = write(tmp_path / "a", network, (torch.ones(1, 6),), keep=0.5)
    for loaded in (small, autoprune.load(trained(3, Described), tmp_path / "a")):
        kept = loaded.a.out_features
        assert loaded.num_features == loaded.feature_info[0]["num_chs"] == kept < network.a.out_features


class Doubling(Plain):
    def forward(self, x):
        return 2 * super().forward(x)


def test_the_files_of_an_export_have_the_access_rights_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "small", trained())
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "small").iterdir()}
    assert modes == {"recipe.json": 0o640, "weights.safetensors": 0o640}
    assert stat.S_IMODE((tmp_path / "small").stat().st_mode) == 0o750


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_export as t
room = "publishing" if sys.argv[2] == "_publish" else "export"
export = sys.modules["autoprune.run.results." + room]
name, at = sys.argv[2], sys.argv[3]
def dying(function):
    def call(*arguments, **options):
        if at == "after":
            function(*arguments, **options)
        os._exit(9)
    return call
setattr(export, name, dying(getattr(export, name)))
t.write(Path(sys.argv[1]), t.trained())
"""


@pytest.mark.faults
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(("step", "at"), [("write_tensors", "after"), ("write_json", "after"), ("_publish", "before")])
def test_an_export_that_is_killed_leaves_nothing_that_refuses_the_next(tmp_path, step, at, there):
    folder = tmp_path / "small"
    if there:
        folder.mkdir()
    code = KILLED.format(tests=os.path.dirname(__file__))
    assert subprocess.run([sys.executable, "-c", code, folder, step, at], check=False).returncode == 9
    assert not list(folder.glob("[!.]*"))
    with pytest.raises(RecipeError, match=r"has no recipe\.json"):
        autoprune.load(trained(), folder)
    write(folder, trained())
    autoprune.load(trained(), folder)
    assert {path.name for path in (*tmp_path.iterdir(), *folder.iterdir())} == {
        "small",
        "recipe.json",
        "weights.safetensors",
    }


def test_an_export_killed_between_its_two_files_in_a_folder_that_was_there_is_written_again(tmp_path):
    write(tmp_path / "small", trained())
    (tmp_path / "small" / ".moving-small-1").mkdir()
    (tmp_path / "small" / "recipe.json").rename(tmp_path / "small" / ".moving-small-1" / "recipe.json")
    write(tmp_path / "small", trained())
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"recipe.json", "weights.safetensors"}


@pytest.mark.parametrize("name", ["notes.txt", "weights.safetensors", "recipe.json"])
def test_a_folder_with_anything_of_the_users_is_not_written_to(tmp_path, name):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / name).write_text("mine")
    with pytest.raises(RunExists, match="Give another --out"):
        write(tmp_path / "small", trained())
    assert [path.read_text() for path in (tmp_path / "small").iterdir()] == ["mine"]


def test_a_disk_without_room_for_an_export_is_named_and_nothing_is_left(tmp_path, full_disk):
    model = trained()
    with full_disk(2000), pytest.raises(OSError, match=r"File too large: .*weights\.safetensors'"):
        write(tmp_path / "small", model)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "small", model)


class Tied(nn.Module):
    """Two layers tied through their data, one of them transposed."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(8, 3)
        self.there, self.back = nn.Linear(8, 6, bias=False), nn.Linear(6, 8, bias=False)
        self.back.weight.data = self.there.weight.data.t()

    def forward(self, x):
        return self.leave(torch.tanh(self.back(torch.tanh(self.there(torch.tanh(self.enter(x)))))))


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel], ids=["plain", "wrapped"])
def test_tied_tensors_are_exported_and_tied_again_when_they_are_loaded(tmp_path, wrap):
    model, x = Tied().eval(), torch.randn(2, 4)
    structure = find_structure(model, x)
    assert sorted(unit.width for unit in structure.units) == [6, 8]
    positions = {unit.name: np.arange(0, unit.width, 2) for unit in structure.units}
    small = cut(model, structure, positions)
    export_to(tmp_path / "export", small, ExportFacts(model, make_recipe(structure, positions), {}), (x,))
    loaded = autoprune.load(wrap(Tied()), tmp_path / "export")
    assert torch.equal(loaded(x), small(x))
    assert loaded.back.weight.data_ptr() == loaded.there.weight.data_ptr()
    assert torch.equal(loaded.back.weight, loaded.there.weight.t())
