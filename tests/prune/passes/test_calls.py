"""What one run does not execute: several calls, methods, train mode, and parameters that nothing reads."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune import Structure, call
from autoprune.errors import UnsupportedModel, VerifyError


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def image(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8)


class TwoHeads(nn.Module):
    """`second` says when the second head runs."""

    def __init__(self, second: Callable[..., bool] = lambda self, head: head == "b") -> None:
        super().__init__()
        self.stem, self.body = conv(3, 16), conv(16, 12)
        self.a, self.b = nn.Conv2d(12, 5, 1), nn.Conv2d(16, 7, 1)
        self.second = second

    def forward(self, x: torch.Tensor, head: str = "a") -> Any:
        h = self.stem(x)
        first = self.a(self.body(h))
        return (first, self.b(h)) if self.second(self, head) else first


def in_training(self: nn.Module, head: str) -> bool:
    return self.training


def kept(structure: Structure) -> set[str]:
    return {unit.name for unit in structure.units}


def pruned(model: nn.Module, example: Any) -> tuple[Structure, nn.Module]:
    """A structure that holds for the example, and half of the network."""
    structure = autoprune.find_structure(model, example)
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, example).ok
    return structure, small


# a head that runs in train mode only


def test_a_head_of_train_mode_computes_what_zeroed_channels_make_of_it() -> None:
    model, x = TwoHeads(in_training), image(2)
    structure = autoprune.find_structure(model, x)
    small = autoprune.shrink(model, structure, {"stem.0": [1, 4, 7], "body.0": [0, 2]})
    masked = copy.deepcopy(model)
    for module, stays in ((masked.stem, [1, 4, 7]), (masked.body, [0, 2])):
        gone = [i for i in range(module[0].out_channels) if i not in stays]
        module.register_forward_hook(lambda module, args, y, gone=gone: y.index_fill(1, torch.tensor(gone), 0.0))
    for network in (small, masked):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    for got, wanted in zip(small(x), masked(x), strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_small_network_with_a_head_of_train_mode_trains_as_the_dense_one_does() -> None:
    model = TwoHeads(in_training)
    structure, small = pruned(model, image())
    assert kept(structure) == {"stem.0", "body.0"}
    assert structure.unmet == ()
    main, auxiliary = small.train()(image(2))
    (main.sum() + auxiliary.sum()).backward()
    assert small.b.weight.shape == (7, 8, 1, 1)


def test_verify_finds_a_wrong_head_that_only_train_mode_runs() -> None:
    model = TwoHeads(in_training)
    structure, small = pruned(model, image())
    nn.init.zeros_(small.b.weight)
    report = autoprune.verify(model, small, structure, image())
    assert not report.ok
    assert report.errors[0] <= 1e-4 < report.errors[1]  # of the output of both modes, of that of train mode alone


def test_tracing_and_verifying_in_train_mode_change_neither_network() -> None:
    class Counting(TwoHeads):
        def __init__(self) -> None:
            super().__init__(in_training)
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x: torch.Tensor, head: str = "a") -> Any:
            if self.training:
                self.steps += 1
                with torch.no_grad():
                    self.b.weight.mul_(0.9)  # as an average of weights is kept up in a forward
            return super().forward(x, head)

    model = Counting()
    before = copy.deepcopy(model.state_dict())
    _, small = pruned(model, image())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert small.steps == 0
    assert model.training


def test_blocks_that_train_mode_skips_at_random_are_pruned_in_both_modes() -> None:
    class Deep(nn.Module):
        def __init__(self, skips: Callable[[], bool]) -> None:
            super().__init__()
            self.stem, self.head = conv(3, 8), nn.Conv2d(8, 4, 1)
            self.blocks = nn.ModuleList(nn.Sequential(conv(8, 12), nn.Conv2d(12, 8, 1)) for _ in range(3))
            self.skips = skips

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for block in self.blocks:
                if not (self.training and self.skips()):
                    noise = torch.empty(len(x), 1, 1, 1).bernoulli_(0.5) if self.training else 1.0
                    x = x + block(x) * noise
            return self.head(x)

    for skips in (lambda: random.random() < 0.5, lambda: bool(torch.rand(()) < 0.2)):
        structure, small = pruned(Deep(skips), image())
        assert {"blocks.0.0.0", "blocks.1.0.0", "blocks.2.0.0", "blocks.2/branch"} <= kept(structure)
        assert small.train()(image(2)).shape == (2, 4, 8, 8)


def test_a_train_mode_that_differs_by_dropout_and_statistics_alone_is_not_traced_again() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3, batch_first=True)
    for model, example in (
        (nn.Sequential(conv(3, 8), nn.Dropout(0.5), conv(8, 8)), image()),
        (layer, torch.randn(1, 3, 8)),
    ):
        structure = autoprune.find_structure(model, example)
        assert [(each.train, each.traced) for each in structure.passes] == [(False, 0), (True, 0)]
        assert structure.notes == ()


def test_a_train_mode_that_does_not_run_is_told_and_what_it_alone_runs_stays() -> None:
    class Detector(TwoHeads):
        def forward(self, x: torch.Tensor, target: torch.Tensor | None = None) -> Any:
            h = self.stem(x)
            return (self.b(h).mean((2, 3)) - target).square().mean() if self.training else self.a(self.body(h))

    model, target = Detector(), torch.randn(1, 7)
    structure, small = pruned(model, image())
    assert [each.train for each in structure.passes] == [False]
    (note,) = structure.notes
    assert note.startswith("In train mode call 'forward' was not looked at: expected Detector to run")
    assert "targets" in note
    assert kept(structure) == {"body.0"}
    assert small.train()(image(), target).isfinite()
    structure, small = pruned(model, call(image(), target))
    assert structure.notes == structure.unmet == ()
    assert kept(structure) == {"stem.0", "body.0"}
    assert small.train()(image(), target).isfinite()


# calls


@pytest.mark.parametrize("named", [True, False])
def test_heads_that_an_argument_chooses_are_related_in_one_structure(named: bool) -> None:
    calls = [call(image()), call(image(), head="b")]
    example = {"one": calls[0], "two": calls[1]} if named else calls
    structure, small = pruned(TwoHeads(), example)
    assert kept(structure) == {"stem.0", "body.0"}
    assert structure.unmet == ()
    assert [tensor.shape[1] for tensor in small(image(), head="b")] == [5, 7]
    assert list(dict.fromkeys(each.example for each in structure.passes)) == (
        ["one", "two"] if named else ["forward/1", "forward/2"]
    )


def test_costs_are_those_of_the_first_call_in_eval_mode() -> None:
    alone = autoprune.find_structure(TwoHeads(), call(image())).cost.dense()
    both = autoprune.find_structure(TwoHeads(in_training), [call(image()), call(image(2))]).cost.dense()
    assert both == alone


def test_methods_of_one_model_are_related_by_the_tensors_they_share() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.text, self.joint = nn.Linear(6, 10), nn.Embedding(9, 10), nn.Linear(10, 4)

        def encode_image(self, x: torch.Tensor) -> torch.Tensor:
            return self.joint(torch.relu(self.image(x)))

        def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
            return self.joint(self.text(ids).mean(1))

    ids, x = torch.randint(9, (2, 3)), torch.randn(2, 6)
    example = {"x": call(x, method="encode_image"), "ids": call(ids=ids, method="encode_text")}
    structure, small = pruned(Encoder(), example)
    (unit,) = structure.units
    assert {"image.weight", "text.weight", "joint.weight"} <= {slot.tensor for slot in unit.slots}
    assert small.encode_text(ids).shape == small.encode_image(x).shape == (2, 4)


def test_a_batch_norm_that_not_every_call_uses_takes_up_no_constant() -> None:
    class Domains(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

        def forward(self, x: torch.Tensor, domain: int = 0) -> torch.Tensor:
            return self.head(torch.relu(self.norms[domain](self.conv(x))))

    assert pruned(Domains(), [call(image()), call(image(), 1)])[0].batch_norms == {}
    assert pruned(TwoHeads(), image())[0].batch_norms["body.0"] == "body.1"


def test_calls_that_cannot_be_are_refused_in_words() -> None:
    model = TwoHeads()
    for example, sentence in (
        ([], "got an empty list"),
        (call(image(), method="encode"), "to have a method 'encode'"),
        ([image(), call(image(), body="b")], "a list several examples"),
    ):
        with pytest.raises(UnsupportedModel, match=sentence):
            autoprune.find_structure(model, example)
    structure = autoprune.find_structure(model, image())
    with pytest.raises(VerifyError, match="was found with, 'forward', got 'other'"):
        autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, {"other": call(image())})


# parameters that no call reads


def test_what_feeds_a_head_that_no_call_runs_stays_whole() -> None:
    model = TwoHeads()
    structure, small = pruned(model, image())
    assert [(row.name, row.shape) for row in structure.unmet] == [("b.weight", (7, 16, 1, 1)), ("b.bias", (7,))]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert sum(row.share for row in structure.unmet) == pytest.approx((7 * 16 + 7) / total)
    assert kept(structure) == {"body.0"}
    (row,) = (row for row in structure.frozen if row.what == "stem.0")
    assert "no example call runs 'b.weight'" in row.reason
    assert "give a call that runs it, or remove it from the model" in row.reason
    assert small(image(), head="b")[1].shape == (1, 7, 8, 8)


def test_what_a_layer_that_no_call_runs_would_feed_stays_whole() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 9), nn.Linear(4, 9), nn.Linear(9, 2)
            self.wide = nn.Sequential(nn.Linear(2, 20), nn.Linear(20, 2))

        def forward(self, x: torch.Tensor, first: bool = True) -> torch.Tensor:
            return self.wide(self.head(torch.relu(self.a(x) if first else self.b(x))))

    structure, small = pruned(Two(), torch.randn(3, 4))
    assert kept(structure) == {"head", "wide.0"}
    assert small(torch.randn(3, 4), first=False).shape == (3, 2)


def test_a_token_that_no_call_reads_keeps_the_width_it_has_and_nothing_else() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
            self.mask_token = nn.Parameter(torch.randn(1, 1, 16))
            self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            x = self.enter(x)
            x = x if mask is None else torch.where(mask[..., None], self.mask_token, x)
            return self.head(self.layer(x))

    x, mask = torch.randn(2, 5, 6), torch.rand(2, 5) > 0.5
    structure, small = pruned(Masked(), x)
    assert {"layer.self_attn/heads", "layer.self_attn/head_dim", "layer.linear1"} <= kept(structure)
    assert small(x, mask).shape == (2, 5, 3)
    structure, small = pruned(Masked(), [(x,), (x, mask)])
    assert "enter" in kept(structure)
    assert small.mask_token.shape == (1, 1, 8)


def test_an_unread_layer_that_reads_what_a_hook_caught_keeps_its_input() -> None:
    class Probing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Sequential(nn.Linear(4, 11), nn.ReLU(), nn.Linear(11, 6)), nn.Linear(6, 2))
            self.probe = nn.Linear(11, 3)

        def forward(self, x: torch.Tensor, probing: bool = False) -> torch.Tensor:
            caught: list[torch.Tensor] = []
            hook = self.body[0][1].register_forward_hook(lambda module, args, y: caught.append(y))
            y = self.body(x)
            hook.remove()
            return self.probe(caught[0]) if probing else y

    structure, small = pruned(Probing(), torch.randn(2, 4))
    assert kept(structure) == {"body.0.2"}
    assert small(torch.randn(2, 4), probing=True).shape == (2, 3)


def test_the_page_about_calls_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "calls.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    said = re.findall(r"^print\(.*\)  # (\[.*?\])", code, re.MULTILINE)
    exec(compile(code, "two_heads.py", "exec", dont_inherit=True), {"__name__": "two_heads"})
    assert capsys.readouterr().out.splitlines() == said
    assert len(said) == 3
