"""Banks on disk: the same to the last bit when they come back, and never taken when they are not."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import autoprune.run.session.bank_file as bank_module
import autoprune.run.session.session as session_module
from autoprune.errors import BankError
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.structure.trace import trace
from autoprune.run import resume, search, solve
from autoprune.run.after import export
from autoprune.run.session.bank_file import bank_key, load_bank, save_bank


class Mixed(nn.Module):
    """Consumers of every kind: grouped, transposed, tied with two biases, and one without moments."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=2)
        self.c, self.d = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(6, 6, 1)
        self.e, self.f, self.g = nn.Conv2d(6, 6, 1), nn.Linear(6, 5), nn.Linear(5, 2)
        self.e.weight = self.d.weight

    def forward(self, x):
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        x = F.relu(self.f(F.relu(self.e(F.relu(self.d(x)))).mean(dim=(2, 3))))
        return F.linear(x, self.g.weight)


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    model, batches = Mixed().eval(), [(torch.randn(6, 3, 8, 8),)]
    structure = trace(model, batches[0])
    names = [unit.name for unit in structure.units]
    return model, structure, make_bank(model, structure, names, CRITERIA["obs"], batches)


@pytest.fixture
def path(made, tmp_path):
    save_bank(made[2], tmp_path / "bank.safetensors", "key")
    return tmp_path / "bank.safetensors"


def test_a_bank_comes_back_to_the_last_bit(made, path):
    model, structure, bank = made
    again = load_bank(path, "key", model, structure)
    assert {name: order.tolist() for name, order in again.orders.items()} == {
        name: order.tolist() for name, order in bank.orders.items()
    }
    assert again.moments.keys() == bank.moments.keys()
    assert again.remarks == bank.remarks
    for name, moments in bank.moments.items():
        other = again.moments[name]
        assert (other.design, other.form, other.centred, other.rows) == (
            moments.design,
            moments.form,
            moments.centred,
            moments.rows,
        )
        assert torch.equal(other.gram, moments.gram)
        assert torch.equal(other.mean, moments.mean)
        assert {bias: mean.tolist() for bias, mean in other.constants.items()} == {
            bias: mean.tolist() for bias, mean in moments.constants.items()
        }


def test_networks_built_from_it_are_the_same_to_the_last_bit(made, path):
    model, structure, bank = made
    again = load_bank(path, "key", model, structure)
    for share in (0.5, 0.8):
        counts = {unit.name: unit.allowed(round(share * unit.width)) for unit in structure.units}
        first, second = bank.build(bank.subnet(counts)).state_dict(), again.build(again.subnet(counts)).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_file_has_half_of_the_symmetric_moments(made, path):
    held = sum(moments.gram.nbytes for moments in made[2].moments.values())
    written = sum(t.nbytes for name, t in load_file(path).items() if name.startswith("gram/"))
    assert written < 0.6 * held


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path):
    path.write_bytes(b"")


def of_another_tool(path):
    save_file({"x": torch.zeros(3)}, path)


def with_another_tensor(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith("mean/"))
    save_file(tensors | {name: tensors[name] + 1e-12}, path, metadata)


def with_another_note(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    checksum, _, text = metadata["autoprune"].partition(" ")
    header = json.loads(text) | {"notes": {"a": "never seen"}}
    save_file(load_file(path), path, {"autoprune": f"{checksum} {json.dumps(header)}"})


DAMAGES = {
    "header": functools.partial(flipped, at=3),
    "metadata": functools.partial(flipped, at=200),
    "last byte": functools.partial(flipped, at=-1),
    "cut": cut_short,
    "empty": emptied,
    "foreign": of_another_tool,
    "tensor": with_another_tensor,
    "note": with_another_note,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_an_error_that_says_so(made, path, damage):
    DAMAGES[damage](path)
    with pytest.raises(BankError, match=r"bank\.safetensors: the bank is damaged"):
        load_bank(path, "key", *made[:2])


def test_a_bank_under_another_key_is_not_taken(made, path):
    with pytest.raises(BankError, match="the bank is from another model, data, criterion or version"):
        load_bank(path, "other", *made[:2])


def test_the_key_changes_with_everything_a_bank_follows_from(made):
    _, structure, _ = made

    def mine(weights, statistics, strength=1):
        return strength * weights.producers[0].sum(dim=1)

    def other(weights, statistics):
        return -weights.producers[0].sum(dim=1)

    keys = [
        bank_key({"model": "a"}, structure, "l2"),
        bank_key({"model": "b"}, structure, "l2"),
        bank_key({"model": "a"}, structure, "l1"),
        bank_key({"model": "a"}, structure.demote({structure.units[0].name: "frozen"}), "l2"),
        bank_key({"model": "a"}, structure, mine),
        bank_key({"model": "a"}, structure, other),
        bank_key({"model": "a"}, structure, functools.partial(mine, strength=2)),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == bank_key({"model": "a"}, structure, "l2")


def test_writing_leaves_nothing_else_in_the_folder(path):
    assert [file.name for file in path.parent.iterdir()] == ["bank.safetensors"]


def test_a_bank_has_the_access_rights_of_new_files(made, tmp_path):
    before = os.umask(0o022)
    try:
        save_bank(made[2], tmp_path / "bank.safetensors", "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "bank.safetensors").stat().st_mode) == 0o644


def test_a_bank_that_does_not_fit_on_the_disk_leaves_no_file_and_an_error_with_its_name(made, tmp_path, full_disk):
    path = tmp_path / "bank.safetensors"
    with full_disk(1000), pytest.raises(OSError, match=r"File too large: .*bank\.safetensors'"):
        save_bank(made[2], path, "key")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_run_goes_on_without_a_bank_that_cannot_be_written_and_resumes(job, tmp_path, monkeypatch, caplog, number):
    def failing(path, *arguments):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(bank_module, "write_tensors", failing)
    result = search(job("uniform", 4), tmp_path / "run")
    assert not (tmp_path / "run" / "bank.safetensors").exists()
    assert f"bank.safetensors cannot be written: {os.strerror(number)}. The run goes on without it" in caplog.text
    monkeypatch.undo()
    assert resume(job("uniform", 4), tmp_path / "run").members == result.members
    assert (tmp_path / "run" / "bank.safetensors").exists()


def test_a_bank_that_cannot_be_read_is_an_error_that_says_so(made, tmp_path):
    (tmp_path / "bank.safetensors").mkdir()
    with pytest.raises(BankError, match=r"bank\.safetensors: the bank cannot be read: .*It is made again"):
        load_bank(tmp_path / "bank.safetensors", "key", *made[:2])


@pytest.fixture
def finished(job, tmp_path):
    search(job(evaluations=12), tmp_path / "run")
    return tmp_path / "run"


def interrupted(finished, tmp_path):
    """The run as it was before its last evaluations and its front."""
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    (folder / "front.csv").unlink()
    whole = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(whole[: 2 * len(whole) // 3])
    return folder


def no_pass(*arguments):
    raise AssertionError("the bank was made again")


def test_resume_solve_and_export_make_no_bank_of_their_own(job, finished, tmp_path, monkeypatch):
    folder = interrupted(finished, tmp_path)
    monkeypatch.setattr(session_module, "make_bank", no_pass)
    resume(job(evaluations=12), folder)
    assert (folder / "front.csv").read_bytes() == (finished / "front.csv").read_bytes()
    solve(job(evaluations=12), folder, "macs=0.6")
    export(job(evaluations=12), folder, "macs<=0.9", tmp_path / "small")


@pytest.mark.parametrize(
    "damage", ["last byte", *(pytest.param(name, marks=pytest.mark.slow) for name in ("foreign", "gone"))]
)
def test_a_bank_that_cannot_be_used_is_made_again_with_a_note(job, finished, tmp_path, damage):
    folder = interrupted(finished, tmp_path)
    if damage == "gone":
        (folder / "bank.safetensors").unlink()
    else:
        DAMAGES[damage](folder / "bank.safetensors")
    said = []
    resume(job(evaluations=12), folder, progress=lambda step: said.append(step.message))
    assert (folder / "front.csv").read_bytes() == (finished / "front.csv").read_bytes()
    notes = json.loads((folder / "environment.json").read_text())["bank"]
    if damage == "gone":
        assert "file" not in notes
    else:
        assert "the bank is damaged" in notes["file"]
        assert notes["file"] in said
    assert (folder / "bank.safetensors").read_bytes() == (finished / "bank.safetensors").read_bytes()
