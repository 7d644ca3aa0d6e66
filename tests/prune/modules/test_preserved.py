"""What shrinking must leave as it was, what must come out the same twice, and what bad input is told."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import fingerprint, same
from torch import nn
from torch.nn import functional as F
from toys import TOYS, Made, Net, chain, conv, conv_bn, image, outputs, pooled

import autoprune
from autoprune import Structure, Unit
from autoprune.errors import SpaceError, UnsupportedModel
from autoprune.prune.modules.copies import copy_model

KINDS_OF_NETWORK = ["residual", "fused_qkv", "tied_embedding", "lstm", "grouped_even"]


def halved(model: nn.Module, example: Any) -> nn.Module:
    return autoprune.shrink(model, autoprune.find_structure(model, example), 0.5)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def equal(left: nn.Module, right: nn.Module) -> bool:
    """Whether two networks have the same tensors, bit by bit."""
    ours, theirs = tensors(left), tensors(right)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_mode_stays_module_by_module() -> None:
    model, example = TOYS["residual"].make()
    model.train()
    model[1].bn1.eval()
    small = halved(model, example)
    assert {n: m.training for n, m in small.named_modules()} == {n: m.training for n, m in model.named_modules()}
    assert small[1].bn2.training
    assert not small[1].bn1.training


def test_requires_grad_stays_parameter_by_parameter() -> None:
    model, example = TOYS["frozen_trunk"].make()
    small = halved(model, example)
    assert {n: p.requires_grad for n, p in small.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert sorted({p.requires_grad for p in small.parameters()}) == [False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["residual", "layer_norm"])
def test_dtype_stays_and_verify_allows_for_it(name: str, dtype: torch.dtype) -> None:
    model, example = TOYS[name].make()
    model, example = model.to(dtype), example.to(dtype)
    structure = autoprune.find_structure(model, example)
    small = autoprune.shrink(model, structure, 0.5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert {n: t.dtype for n, t in tensors(small).items()} == {n: t.dtype for n, t in tensors(model).items()}
    report = autoprune.verify(model, small, structure, example)
    assert report.ok, report


def test_mixed_dtypes_stay() -> None:
    model, example = TOYS["plain"].make()
    model[3].double()
    model[3].register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    small = halved(model, example)
    assert {n: t.dtype for n, t in tensors(small).items()} == {n: t.dtype for n, t in tensors(model).items()}
    assert outputs(small, example)[0].dtype == torch.float64


def test_channels_last_stays() -> None:
    model, example = TOYS["residual"].make()
    small = halved(model.to(memory_format=torch.channels_last), example.contiguous(memory_format=torch.channels_last))
    weights = [parameter for parameter in small.parameters() if parameter.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not any(weight.is_contiguous() for weight in weights)
    plain = halved(*TOYS["residual"].make())
    assert all(parameter.is_contiguous() for parameter in plain.parameters())


def test_forward_hooks_stay_and_see_the_small_network() -> None:
    model, example = TOYS["plain"].make()
    seen: list[tuple[str, int]] = []
    model[1].register_forward_pre_hook(lambda module, inputs: seen.append(("before", inputs[0].shape[1])))
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(("after", output.shape[1])))
    small = halved(model, example)
    seen.clear()
    outputs(small, example)
    assert seen == [("before", 6 * 16), ("after", 12)]
    seen.clear()
    outputs(model, example)
    assert seen == [("before", 12 * 16), ("after", 24)]


def test_backward_hooks_stay() -> None:
    model, example = TOYS["plain"].make()
    seen: list[tuple[int, ...]] = []
    model[1].register_full_backward_hook(lambda module, inputs, output: seen.append(tuple(output[0].shape)))
    halved(model, example)(example).sum().backward()
    assert seen == [(2, 12)]


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [("tied_embedding", "embedding", "decoder"), ("tied_linears", "left", "right")],
)
def test_tied_parameters_stay_one_and_train_as_one(name: str, left: str, right: str) -> None:
    model, example = TOYS[name].make()
    small = halved(model, example)
    first, second = small.get_submodule(left), small.get_submodule(right)
    assert first.weight is second.weight
    assert first.weight.numel() < model.get_submodule(left).weight.numel()
    before = first.weight.detach().clone()
    optimiser = torch.optim.SGD(small.parameters(), lr=0.1)
    small(example).square().sum().backward()
    optimiser.step()
    assert not torch.equal(first.weight, before)
    assert torch.equal(first.weight, second.weight)


def test_a_module_under_two_names_stays_one() -> None:
    shared = conv(12, 12)
    model = chain(conv(3, 12), shared, nn.ReLU(), shared, pooled(12)).eval()
    small = halved(model, image())
    assert small[1] is small[3]
    assert small[1].weight.shape == (6, 6, 3, 3)


def test_tied_buffers_stay_one() -> None:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.head(net.second(net.first(x) * net.left) * net.right)

    model = Net(run, first=conv(3, 8), second=conv(8, 8), head=pooled(8)).eval()
    model.register_buffer("left", torch.rand(8, 1, 1))
    model.register_buffer("right", model.left)
    structure = autoprune.find_structure(model, image())
    small = autoprune.shrink(model, structure, 0.5)
    assert small.left is small.right
    assert autoprune.verify(model, small, structure, image()).ok


@pytest.mark.parametrize("name", [*KINDS_OF_NETWORK, "grouped_queries", "weight_norm", "frozen_batch_norm"])
def test_names_of_tensors_stay(name: str) -> None:
    model, example = TOYS[name].make()
    small = halved(model, example)
    assert [n for n, _ in small.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in small.named_buffers()] == [n for n, _ in model.named_buffers()]
    assert small.state_dict().keys() == model.state_dict().keys()


def test_buffers_no_unit_touches_stay_bit_by_bit() -> None:
    model, example = TOYS["window_attention"].make()
    small = halved(model, example)
    assert torch.equal(small.block.attention.offsets, model.block.attention.offsets)


def test_buffers_that_are_not_saved_stay_so() -> None:
    model, example = TOYS["grouped_queries"].make()
    small = halved(model, example)
    assert dict(small.named_buffers()).keys() == {"attention.cos", "attention.sin"}
    assert not any("cos" in name or "sin" in name for name in small.state_dict())


def test_counters_of_batch_norms_stay() -> None:
    model, example = TOYS["residual"].make()
    model[1].bn1.num_batches_tracked.fill_(17)
    assert halved(model, example)[1].bn1.num_batches_tracked.item() == 17


def test_the_small_network_shares_nothing_with_the_model() -> None:
    model, example = TOYS["residual"].make()
    before = fingerprint(model)
    structure = autoprune.find_structure(model, example)
    for small in (autoprune.shrink(model, structure, 1.0), autoprune.shrink(model, structure, {})):
        for tensor in tensors(small).values():
            tensor.data.zero_()
    assert same(before, fingerprint(model))


def test_the_small_network_trains() -> None:
    model, example = TOYS["fused_qkv"].make()
    small = halved(model, example).train()
    small(example).square().sum().backward()
    assert all(p.is_leaf and p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
    assert all(p.grad is None for p in model.parameters())


class Copied(nn.Linear):
    """Says how it was copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Copied:
        copied = Copied(self.in_features, self.out_features)
        copied.said = "its own way"
        return copied


class Stated(nn.Linear):
    """Leaves out what it can compute again."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "table"}


class Listed(list, nn.Module):  # type: ignore[type-arg]
    """Keeps entries outside its attributes."""

    __hash__ = nn.Module.__hash__

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.extend([[1], [2]])


def test_a_copy_is_what_deepcopy_makes_of_a_class_that_says_how_it_is_copied() -> None:
    model = nn.Module()
    model.copied, model.stated, model.listed = Copied(2, 3), Stated(2, 3), Listed()
    model.stated.table = [1.0]
    model.again, model.hooks = model.stated, model.stated._forward_hooks
    copied = copy_model(model)
    assert copied.copied.said == copy.deepcopy(model).copied.said == "its own way"
    assert not hasattr(copied.stated, "table")
    assert list(copied.listed) == [[1], [2]]
    assert copied.listed[0] is not model.listed[0]
    assert copied.again is copied.stated
    assert copied.hooks is copied.stated._forward_hooks is not model.hooks


def test_global_random_numbers_are_left_alone() -> None:
    model, example = TOYS["residual"].make()
    before = torch.get_rng_state()
    structure = autoprune.find_structure(model, example)
    autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, example)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", KINDS_OF_NETWORK)
def test_structures_found_twice_are_equal(name: str) -> None:
    model, example = TOYS[name].make()
    structure = autoprune.find_structure(model, example)
    assert structure.units
    assert autoprune.find_structure(model, example) == structure


@pytest.mark.parametrize("name", KINDS_OF_NETWORK)
def test_networks_shrunk_twice_are_equal_bit_by_bit(name: str) -> None:
    model, example = TOYS[name].make()
    structure = autoprune.find_structure(model, example)
    first, second = (autoprune.shrink(model, structure, 0.5) for _ in range(2))
    assert equal(first, second)
    assert not equal(first, model)


@pytest.mark.parametrize("name", KINDS_OF_NETWORK)
def test_a_pickled_structure_shrinks_alike(name: str) -> None:
    model, example = TOYS[name].make()
    structure = autoprune.find_structure(model, example)
    again: Structure = pickle.loads(pickle.dumps(structure))
    assert again == structure
    assert equal(autoprune.shrink(model, again, 0.5), autoprune.shrink(model, structure, 0.5))


def test_a_pickled_report_is_the_same() -> None:
    model, example = TOYS["several_inputs"].make()
    structure = autoprune.find_structure(model, example)
    report = autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, example)
    assert len(report.errors) == 2
    assert pickle.loads(pickle.dumps(report)) == report


def channels(structure: Structure) -> Unit:
    return next(unit for unit in structure.units if unit.kind == "channels")


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, Structure]:
    model, example = TOYS["residual"].make()
    return model, autoprune.find_structure(model, example)


def test_an_example_of_the_wrong_shape_is_told() -> None:
    model, _ = TOYS["residual"].make()
    before = fingerprint(model)
    message = r"expected Sequential to run on the example inputs of shapes \[\(2, 4, 8, 8\)\].*channels"
    with pytest.raises(UnsupportedModel, match=message):
        autoprune.find_structure(model, torch.randn(2, 4, 8, 8))
    assert same(before, fingerprint(model))


def test_a_missing_input_is_told() -> None:
    model, example = TOYS["several_inputs"].make()
    with pytest.raises(UnsupportedModel, match="sentence"):
        autoprune.find_structure(model, {"picture": example["picture"]})


def test_a_forward_that_fails_half_way_is_told_with_its_error_and_leaves_the_model_alone() -> None:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        raise KeyError(f"nothing for {tuple(net.conv(x).shape)}")

    model = Net(run, conv=conv_bn(3, 8)).train()
    before = fingerprint(model)
    with pytest.raises(UnsupportedModel, match=r"got KeyError: .*nothing for \(2, 8, 8, 8\)"):
        autoprune.find_structure(model, image())
    assert same(before, fingerprint(model))


def test_a_network_without_parameters_is_told() -> None:
    with pytest.raises(UnsupportedModel, match="expected a network with parameters, got a Sequential without any"):
        autoprune.find_structure(chain(nn.ReLU(), nn.Flatten()), image())


@pytest.mark.parametrize("amount", [0, -1, 0.0, 1.5, []])
def test_amounts_no_unit_of_channels_can_keep_are_told(residual: tuple[nn.Module, Structure], amount: Any) -> None:
    model, structure = residual
    unit = channels(structure)
    with pytest.raises(SpaceError, match=rf"unit '{unit.name}' has .* got"):
        autoprune.shrink(model, structure, {unit.name: amount})


def test_more_than_the_width_is_told(residual: tuple[nn.Module, Structure]) -> None:
    model, structure = residual
    for unit in structure.units:
        with pytest.raises(SpaceError, match=rf"unit '{unit.name}' has .*{unit.width}.* got {unit.width + 1}"):
            autoprune.shrink(model, structure, {unit.name: unit.width + 1})


def test_an_unknown_name_is_told_with_those_that_are_known(residual: tuple[nn.Module, Structure]) -> None:
    model, structure = residual
    name = channels(structure).name
    with pytest.raises(SpaceError, match=rf"no unit is called 'stem'; units are \[.*'{name}'"):
        autoprune.shrink(model, structure, {"stem": 0.5})


class Ranked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sort(-1).values


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(5, 3), "model (in|out)put"),
        (chain(nn.Linear(5, 8), Ranked(), nn.Linear(8, 3)), "sorted by operator sort"),
    ],
    ids=["one layer", "an order of positions"],
)
def test_a_network_that_cannot_shrink_has_a_structure_and_shrink_says_why(model: nn.Module, reason: str) -> None:
    structure = autoprune.find_structure(model, torch.randn(2, 5))
    assert structure.units == ()
    assert structure.frozen
    with pytest.raises(UnsupportedModel, match=reason):
        autoprune.shrink(model, structure, 0.5)


def always_dropping() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        return net.head(F.dropout(net.stem(x), 0.5, training=True))

    return Net(run, stem=conv_bn(3, 8), head=pooled(8)).eval(), image()


def noisy() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        return net.head(x + 0.1 * torch.randn_like(x))

    return Net(run, stem=conv_bn(3, 8), head=pooled(8)).eval(), image()


def alternating() -> Made:
    """Every second call takes another branch."""

    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        net.calls += 1
        return net.head((net.left if net.calls % 2 else net.right)(net.stem(x)))

    model = Net(run, stem=conv_bn(3, 8), left=conv(8, 12), right=conv(8, 12), head=pooled(12)).eval()
    model.calls = 0
    return model, image()


def choosing_by_chance() -> Made:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        layers = [layer for layer in net.layers if torch.rand(()) < 0.5]
        return net.head(chain(*layers)(net.stem(x)))

    layers = nn.ModuleList(conv_bn(8, 8) for _ in range(20))
    return Net(run, stem=conv_bn(3, 8), layers=layers, head=pooled(8)).eval(), image()


@pytest.mark.parametrize("make", [always_dropping, noisy, alternating, choosing_by_chance])
def test_a_forward_that_differs_from_run_to_run_is_told(make: Callable[[], Made]) -> None:
    model, example = make()
    with pytest.raises(UnsupportedModel, match="differ"):
        autoprune.find_structure(model, example)


def _choosing_by_the_data() -> nn.Module:
    def run(net: Net, x: torch.Tensor) -> torch.Tensor:
        left = x.sum() > 0
        x = net.stem(x)
        return net.head(net.left(x) if left else net.right(x))

    left = chain(conv_bn(8, 20), conv_bn(20, 12))
    return Net(run, stem=conv_bn(3, 8), left=left, right=conv_bn(8, 12), head=pooled(12)).eval()


def test_branches_chosen_by_the_data_are_pruned_when_each_is_shown() -> None:
    model, both = _choosing_by_the_data(), [image().abs(), -image().abs()]
    structure = autoprune.find_structure(model, both)
    assert {"left.1.0", "right.0"} <= {name for unit in structure.units for name in unit.modules}
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, both).ok


def test_a_branch_that_was_not_shown_still_runs_in_the_small_network() -> None:
    model = _choosing_by_the_data()
    structure = autoprune.find_structure(model, image().abs())
    assert any("'right.0.weight'" in row.reason for row in structure.frozen)
    small = autoprune.shrink(model, structure, 0.5)
    assert small(-image().abs()).shape == model(-image().abs()).shape
