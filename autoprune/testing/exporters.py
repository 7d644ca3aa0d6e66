"""Contract test of exporters."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoprune.testing.networks import small_example, small_network
from autoprune.testing.sentences import keeping
from autoprune.testing.unchanged import changed_in, equal, same_process, state_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autoprune.run.results.exporter import ExportFacts

CANDIDATE = {  # a row of a front
    **{"candidate": "3-2", "macs": 1000, "params": 100, "macs_ratio": 0.5, "params_ratio": 0.4, "accuracy": 0.9},
    **{"select_accuracy": 0.9, "search_accuracy": 0.8, "verify_error": 1e-7, "levels": [1, 1]},
    **{"kept": {"0": 3, "3": 2}, "fit": {}},
}


def check_exporter(
    exporter: Any, model: nn.Module | None = None, example: Sequence[torch.Tensor] | None = None
) -> None:
    """Checks that an exporter keeps its contract.

    An exporter must have a name and write a network into an empty directory: at least one file, no links, the same
    files each time, and nothing outside the directory. It must not change the network, its modules and their modes, the
    example and the current directory.

    Args:
        exporter: an exporter, or a class or function that makes one.
        model: a network to prune and to export; by default a small one.
        example: the inputs of `model` for one example.

    Raises:
        AssertionError: the exporter breaks its contract; the message says how, and what to do.
    """
    from autoprune.run.results.exporter import find_exporter

    with keeping("the exporter", "See autoprune.run.results.exporter.Exporter for what an exporter must do."):
        found = find_exporter(exporter)
        assert found.name, "expected an exporter with a name, got an empty one. Set `name`"
        dense, inputs = small_network() if model is None else model, small_example() if example is None else example
        network, facts = _pruned(dense, inputs)
        written = [_written(found, network, facts, inputs) for _ in range(2)]
        assert written[0] == written[1], (
            f"expected the same files each time, got {written[0]} and then {written[1]}. Take no names from clocks or "
            "counters"
        )


def _pruned(dense: nn.Module, example: Sequence[torch.Tensor]) -> tuple[nn.Module, ExportFacts]:
    """A network that keeps half of every unit, and its facts."""
    from autoprune.prune.find import find_structure
    from autoprune.prune.surgery.surgery import cut, make_recipe
    from autoprune.run.results.exporter import ExportFacts

    structure = find_structure(dense, tuple(example))
    positions = {unit.name: np.arange(unit.allowed(-(-unit.width // 2))) for unit in structure.units}
    network = cut(dense, structure, positions).eval()
    return network, ExportFacts(dense, make_recipe(structure, positions), CANDIDATE)


def _written(exporter: Any, network: nn.Module, facts: ExportFacts, example: Sequence[torch.Tensor]) -> list[str]:
    """The names of the files that an exporter writes."""
    from autoprune.run.results.exporter import files_of

    before, inputs = state_of(network), [x.clone() for x in example]
    with tempfile.TemporaryDirectory() as around:
        directory = Path(around) / "export"
        directory.mkdir()
        with same_process("the exporter"):
            exporter.write(network, facts, example, directory)
        assert directory.is_dir(), "the exporter removed the directory: write into it, and leave it where it is"
        files = [str(path.relative_to(directory)) for path in files_of(exporter, directory)]
        beside = [path.name for path in Path(around).iterdir() if path != directory]
    assert not beside, f"expected files in the directory only, but {beside} lie beside it. Write into the directory"
    assert not (changed := changed_in(network, before)), (
        f"the exporter changed {changed} of the network: work on a copy.deepcopy() of it"
    )
    assert all(map(equal, example, inputs)), "the exporter changed the example in place: work on a clone() of it"
    return files
