"""The network of the quick start: trained well, kept safely, the same every time."""

import logging

import pytest
import torch

from autoprune.data import digits
from autoprune.errors import ConfigError
from autoprune.zoo import digits_resnet, trained


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


@pytest.fixture
def few(monkeypatch):
    """Trains on the first images only, as what is learned from them does not matter."""
    inputs, labels = trained.digits_train()
    monkeypatch.setattr(trained, "digits_train", lambda: (inputs[:200], labels[:200]))


@pytest.fixture
def cache(few, tmp_path):
    """A folder with one network of one epoch in it."""
    digits_resnet(epochs=1, cache=tmp_path)
    return tmp_path


def cached(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
def test_it_gets_97_percent_of_the_report_set_right(tmp_path):
    network = digits_resnet(cache=tmp_path)
    with torch.inference_mode():
        right = sum((network(*b.inputs).argmax(1) == b.target).sum().item() for b in digits().report)
    assert right / 400 > 0.97
    assert not network.training


def test_the_second_call_reads_what_the_first_one_trained(cache, caplog):
    with caplog.at_level(logging.INFO, "autoprune"):
        first, second = digits_resnet(epochs=1, cache=cache), digits_resnet(epochs=1, cache=cache)
    assert same(first, second)
    assert not caplog.records


@pytest.mark.usefixtures("few")
def test_training_says_so_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "autoprune"):
        digits_resnet(epochs=1, cache=tmp_path)
    assert [record.message.split(" in ")[0] for record in caplog.records] == [
        "training digits_resnet for 1 epochs (seed 0)",
        "trained digits_resnet",
    ]


@pytest.mark.usefixtures("few")
def test_the_seed_decides_the_weights(tmp_path):
    torch.manual_seed(1)
    first = digits_resnet(epochs=1, cache=tmp_path / "a")
    torch.manual_seed(2)
    assert same(first, digits_resnet(epochs=1, cache=tmp_path / "b"))
    assert not same(first, digits_resnet(seed=1, epochs=1, cache=tmp_path / "a"))


def test_other_recipes_have_other_files(cache):
    digits_resnet(seed=1, epochs=1, cache=cache)
    digits_resnet(epochs=2, cache=cache)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.usefixtures("few")
def test_training_leaves_the_global_generator_alone_and_works_without_gradients(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.no_grad():
        network = digits_resnet(epochs=1, cache=tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert same(network, digits_resnet(epochs=1, cache=tmp_path))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_reported_and_replaced(cache, caplog, damage):
    sound = cached(cache).read_bytes()
    damage(cached(cache))
    digits_resnet(epochs=1, cache=cache)
    assert "the cached network cannot be used" in caplog.text
    assert cached(cache).read_bytes() == sound


@pytest.mark.usefixtures("few")
def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert digits_resnet(epochs=1, cache=tmp_path / "file")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert "cannot keep the trained network here" in caplog.text


@pytest.mark.usefixtures("few")
def test_the_cache_is_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digits_resnet(epochs=1)
    assert cached(tmp_path / "autoprune").name.startswith("digits_resnet-")


@pytest.mark.usefixtures("few")
def test_the_cache_is_in_the_home_folder_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    digits_resnet(epochs=1)
    assert cached(tmp_path / ".cache" / "autoprune").suffix == ".safetensors"


def test_no_training_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected epochs of at least 1 for digits_resnet, got 0"):
        digits_resnet(epochs=0, cache=tmp_path)
