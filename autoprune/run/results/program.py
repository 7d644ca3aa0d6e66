"""Exports as torch.export programs: one file that runs without the model's code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from autoprune.errors import ExportError
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.compare import OUTPUT_TOLERANCE, largest_of
from autoprune.prune.passes.containers import tensors_of
from autoprune.run.results.exporter import ExportFacts

PROGRAM = "network.pt2"

_log = logging.getLogger(__name__)

ProgramInputs = tuple[torch.Tensor, ...]


class ProgramExporter:
    """Writes network.pt2, a torch.export program on the CPU, for any number of examples if the network allows that.

    >>> torch.export.load("small/network.pt2").module()(x)
    """

    name = "pt2"

    def write(self, network: nn.Module, facts: ExportFacts, example: Sequence[torch.Tensor], directory: Path) -> None:
        """Writes the program and compares its output with the network's, for one example and for three.

        Raises:
            ExportError: torch.export cannot trace the network, or the output of the saved program differs.
        """
        copy = _on_cpu(network)
        inputs = tuple(tensor.detach().cpu() for tensor in example)
        try:
            _write(_any_number(copy, inputs), copy, (inputs, _repeated(inputs, 3)), directory / PROGRAM)
        except Exception as error:  # torch.export may raise anything while tracing
            _log.warning("%s takes one example at a time: %s", PROGRAM, _first_line(error))
            (directory / PROGRAM).unlink(missing_ok=True)
            _write(_one(copy, inputs), copy, (inputs,), directory / PROGRAM)


def _on_cpu(network: nn.Module) -> nn.Module:
    """A copy on the CPU in which every tensor has its own memory, as programs are saved with all their memory."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named_tensors(network).items()}
    return copy_model(network, own).cpu().eval()


def _repeated(inputs: ProgramInputs, times: int) -> ProgramInputs:
    return tuple(x.repeat(times, *(1,) * (x.dim() - 1)) if x.dim() else x for x in inputs)


def _any_number(network: nn.Module, inputs: ProgramInputs) -> ExportedProgram:
    """The program for any number of examples; two are traced, as a size of one would be fixed."""
    shapes = tuple({0: Dim.AUTO} if x.dim() else None for x in inputs)
    with torch.no_grad():
        return torch.export.export(network, _repeated(inputs, 2), dynamic_shapes=shapes, strict=False)


def _one(network: nn.Module, inputs: ProgramInputs) -> ExportedProgram:
    """The program for exactly the shapes of these inputs."""
    try:
        with torch.no_grad():
            return torch.export.export(network, inputs, strict=False)
    except Exception as error:
        raise ExportError(
            f"torch.export cannot trace the network: {_first_line(error)}. Export it in the format 'autoprune', "
            "which has no such limits."
        ) from error


def _write(program: ExportedProgram, network: nn.Module, tried: Sequence[ProgramInputs], path: Path) -> None:
    """Saves a program, loads it again and compares it with the network. ExportError if they differ."""
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    for inputs in tried:
        gap = largest_of(_outputs(loaded, inputs), _outputs(network, inputs))
        if gap > OUTPUT_TOLERANCE:
            raise ExportError(
                f"expected the program in {path.name} to have the network's output, to {OUTPUT_TOLERANCE:g} of "
                f"the largest output, it differs by {gap:.2g}. Export the network in the format 'autoprune'."
            )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")


def _outputs(network: Callable[..., object], inputs: ProgramInputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors_of(network(*(x.clone() for x in inputs)))
