"""Wrappers are taken off and said to be; what cannot be pruned is refused with what to do instead."""

from __future__ import annotations

import copy
import socket

import pytest
import torch
from torch import nn
from torch.ao import quantization

import autoprune
from autoprune.errors import UnsupportedModel

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of quantisation, scripting and compilation


def network():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()


def image():
    return torch.randn(1, 3, 8, 8)


@pytest.fixture
def group():
    """A process group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def check_taken_off(wrapped, bare, *names):
    structure, plain = autoprune.find_structure(wrapped, image()), autoprune.find_structure(bare, image())
    assert structure.units == plain.units
    assert structure.cost.dense() == plain.cost.dense()
    assert structure.frozen == ()
    assert [note.partition(" was removed")[0] for note in structure.notes] == list(names)
    small = autoprune.shrink(wrapped, structure, 0.5)
    assert type(small) is nn.Sequential
    assert list(small.state_dict()) == list(bare.state_dict())
    assert autoprune.verify(wrapped, small, structure, image()).ok
    assert autoprune.verify(bare, nn.DataParallel(small), structure, image()).ok


def test_data_parallel_is_taken_off():
    check_taken_off(nn.DataParallel(network()), network(), "DataParallel")


def test_distributed_data_parallel_is_taken_off(group):
    check_taken_off(nn.parallel.DistributedDataParallel(network()), network(), "DistributedDataParallel")


def test_compilation_is_taken_off_and_what_is_wrapped_twice_is_told_twice():
    compiled = torch.compile(network())
    check_taken_off(compiled, network(), "torch.compile")
    check_taken_off(nn.DataParallel(compiled), network(), "DataParallel", "torch.compile")


class Counting:
    """A backend of torch.compile that counts the graphs it gets."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward

    def __deepcopy__(self, memo):
        return self


def compiled_activation(backend):
    class Activation(nn.Module):
        @torch.compile(backend=backend)
        def forward(self, x):
            return x.sigmoid() * x

    return Activation()


@pytest.mark.parametrize("way", ["part", "part in place", "whole in place", "forward"])
def test_compiled_parts_run_as_they_are_written_and_nothing_is_compiled_for_it(way):
    backend, model = Counting(), network()
    if way == "part":
        model[3] = torch.compile(model[3], backend=backend)
    elif way == "part in place":
        model[3].compile(backend=backend)
    elif way == "whole in place":
        model.compile(backend=backend)
    else:
        model.insert(1, compiled_activation(backend))
    structure = autoprune.find_structure(model, image())
    assert [unit.width for unit in structure.units] == [8, 6]
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, image()).ok
    assert backend.graphs == 0


def test_a_graph_module_is_pruned_as_what_it_was_traced_from():
    traced = torch.fx.symbolic_trace(network())
    structure = autoprune.find_structure(traced, image())
    assert structure.units == autoprune.find_structure(network(), image()).units
    small = autoprune.shrink(traced, structure, 0.5)
    assert autoprune.verify(traced, small, structure, image()).ok
    assert small(image()).shape == (1, 5)


def trained_for_quantisation():
    model = network().train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model)


def calibrated():
    model = quantization.QuantWrapper(network())
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    return quantization.prepare(model.eval())


def quantised():
    model = calibrated()
    model(image())
    return quantization.convert(model)


class Packed4(nn.Parameter):
    """A parameter that holds two weights in each of its bytes, as bitsandbytes has them."""

    def __new__(cls, data):
        return torch.Tensor._make_subclass(cls, data, False)

    def __deepcopy__(self, memo):
        return type(self)(self.data.clone())


class Linear4(nn.Linear):
    def __init__(self, inputs, outputs, parameter):
        super().__init__(inputs, outputs)
        del self.weight
        self.weight = parameter(torch.randint(0, 255, (inputs * outputs // 2, 1), dtype=torch.uint8))

    def forward(self, x):
        weight = torch.stack([self.weight >> 4, self.weight & 15], -1).reshape(self.out_features, -1)
        return nn.functional.linear(x, weight.to(x.dtype), self.bias)


def with_packed_weights(parameter):
    model = network()
    model[7] = Linear4(6, 5, parameter)
    return model


def plain_integers(data):
    return nn.Parameter(data, requires_grad=False)


class Sharded(nn.Module):
    """As FullyShardedDataParallel names itself; the real one needs an accelerator."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


REFUSED = {
    "scripted": (lambda: torch.jit.script(network()), "a TorchScript module.* script or trace the small one"),
    "traced": (lambda: torch.jit.trace(network(), image()), "a TorchScript module"),
    "exported": (lambda: torch.export.export(network(), (image(),)), "an exported program.* export the small one"),
    "module of an exported one": (lambda: torch.export.export(network(), (image(),)).module(), "an exported program"),
    "trained for quantisation": (trained_for_quantisation, "prepared for quantisation: module '0' .*prepare the small"),
    "calibrated for quantisation": (calibrated, "prepared for quantisation.*Observer"),
    "quantised": (quantised, "quantised weights: module '.*quantise the small one"),
    "quantised when it runs": (
        lambda: quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), {nn.Linear}),
        "quantised weights: module '1'",
    ),
    "packed in a class of parameters": (
        lambda: with_packed_weights(Packed4),
        "quantised weights: module '7' .*Linear4",
    ),
    "packed in plain parameters": (lambda: with_packed_weights(plain_integers), "quantised weights: module '7'"),
    "sharded": (lambda: type("FullyShardedDataParallel", (Sharded,), {})(network()), "Gather its full state dict"),
    "without shapes": (lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyConv2d(4, 3)), "Run the network once first"),
    "a state dict": (lambda: network().state_dict(), "expected a torch.nn.Module, got a OrderedDict"),
    "a class": (lambda: nn.Linear, "got the class Linear"),
    "a function": (lambda: torch.relu, "expected a torch.nn.Module"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_pruned_is_refused_with_what_to_do_instead(name):
    make, said = REFUSED[name]
    model = make()
    with pytest.raises(UnsupportedModel, match=said):
        autoprune.find_structure(model, image())


def test_a_distributed_tensor_is_refused(group):
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    model = network()
    sharded = distribute_tensor(model[7].weight.detach(), init_device_mesh("cpu", (1,)), [Shard(0)])
    model[7].weight = nn.Parameter(sharded)
    with pytest.raises(UnsupportedModel, match="'weight' of module '7' is a DTensor, which is sharded"):
        autoprune.find_structure(model, image())


class Stored(nn.Module):
    """A weight in eight bits with its scale, in plain buffers and operators: nothing special."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(outputs, 1))

    def forward(self, x):
        return nn.functional.linear(x, self.weight.float() * self.scale)


def test_integers_that_a_forward_scales_itself_are_pruned_as_floats_are():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Stored(6, 8), nn.ReLU(), nn.Linear(8, 2))
    structure = autoprune.find_structure(model, torch.randn(3, 4))
    assert [unit.width for unit in structure.units] == [6, 8]
    small = autoprune.shrink(model, structure, 0.5)
    assert small[2].weight.shape == (4, 3)
    assert small[2].weight.dtype == torch.int8
    assert autoprune.verify(model, small, structure, torch.randn(3, 4)).ok


def test_a_wrapped_network_is_left_as_it_is():
    wrapped = nn.DataParallel(network())
    before = copy.deepcopy(wrapped.state_dict())
    autoprune.shrink(wrapped, autoprune.find_structure(wrapped, image()), 0.5)
    assert wrapped.state_dict().keys() == before.keys()
    assert all(torch.equal(wrapped.state_dict()[name], tensor) for name, tensor in before.items())
