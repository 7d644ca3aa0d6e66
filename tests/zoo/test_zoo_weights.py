"""Weights from files: every form that fits, and a sentence for each that does not."""

import pytest
import torch
from safetensors.torch import save_file

from autoprune.errors import DataError, RecipeError
from autoprune.zoo import resnet20, resnet32
from autoprune.zoo.weights import load_weights


@pytest.fixture(scope="module")
def trained():
    """Weights and statistics that no fresh network has."""
    network = resnet20(seed=5)
    for name, x in network.state_dict().items():
        if "running" in name:
            x.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
    return network.state_dict()


def without_counters(state):
    return {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}


FORMS = {
    "plain.pt": lambda state, path: torch.save(state, path),
    "no_counters.pt": lambda state, path: torch.save(without_counters(state), path),
    "nested.pt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "parallel.th": lambda state, path: torch.save({f"module.{n}": x for n, x in state.items()}, path),
    "plain.safetensors": save_file,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_state_dict_is_loaded(tmp_path, trained, name):
    FORMS[name](trained, tmp_path / name)
    loaded = resnet20(tmp_path / name).state_dict()
    assert all(torch.equal(loaded[key], trained[key]) for key in without_counters(trained))


def test_weights_of_another_network_name_three_keys(tmp_path, trained):
    torch.save(trained, tmp_path / "w.pt")
    message = r"w.pt: expected the weights of this ResNet, got \d+ missing: (layer1.3\S+, ){3}\.\.\."
    with pytest.raises(RecipeError, match=message):
        resnet32(tmp_path / "w.pt")
    torch.save(resnet32().state_dict(), tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"got \d+ unexpected: (layer1.3\S+, ){3}\.\.\."):
        resnet20(tmp_path / "w.pt")


def test_weights_of_another_shape_say_both_shapes_and_change_nothing(tmp_path, trained):
    torch.save(trained, tmp_path / "w.pt")
    network = resnet20(classes=100)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    expected = (
        r"2 of another shape: linear.weight \(10, 64\) instead of \(100, 64\), linear.bias \(10,\) instead of \(100,\)"
    )
    with pytest.raises(RecipeError, match=expected):
        load_weights(network, tmp_path / "w.pt")
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.pt: expected a file of trained weights, got no such file"):
        resnet20(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_file_of_something_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: expected a plain state dict .*got a file that cannot be read"):
        resnet20(tmp_path / name)


def test_a_pickled_network_is_refused_unread(tmp_path):
    torch.save(resnet20(), tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"w.pt: expected a plain state dict .*got a file that cannot be read"):
        resnet20(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "got"),
    [([1, 2], "got list"), ({}, r"got the entries \[\]"), ({"epoch": 3}, r"got the entries \['epoch'\]")],
)
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path, content, got):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(DataError, match=rf"expected a state dict, tensors by name, {got}"):
        resnet20(tmp_path / "w.pt")
