"""The contract of an export format, and the built-in formats; naming a format does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from autoprune.errors import ConfigError, PluginError, did_you_mean
from autoprune.plugins import absolute_name, load_plugin, plugin_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autoprune.prune.surgery.surgery import Recipe

EXPORTERS: dict[str, str] = {
    "autoprune": "autoprune.run.results.export:RecipeExporter",
    "pt2": "autoprune.run.results.program:ProgramExporter",
    "transformers": "autoprune.pretrained.export:TransformersExporter",
}
DEFAULT = "autoprune"

_TEST = "autoprune.testing.check_exporter tests an exporter."


@dataclass(frozen=True)
class ExportFacts:
    """Facts on a network that is exported.

    Attributes:
        dense: the network that it was pruned from.
        recipe: turns the dense network into the small one.
        measured: the small network's measurements, its row of the front.
        origin: where it comes from: the content of the job file ("job") and the number of examples of each set
            ("examples"); empty if that is not known.
    """

    dense: nn.Module
    recipe: Recipe
    measured: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Exporter(Protocol):
    """Writes a network in one format.

    >>> exporter.write(network, facts, example, directory)  # into an empty directory, which is then moved as a whole
    """

    @property
    def name(self) -> str:
        """The name of the format."""
        ...

    def write(self, network: nn.Module, facts: ExportFacts, example: Sequence[torch.Tensor], directory: Path) -> None:
        """Writes at least one file, and checks that the written network has the same output.

        After an exception the directory is removed. The network and the example must not be changed.

        Args:
            network: the small network in eval mode.
            facts: facts on it.
            example: the inputs of one example, so that `network(*example)` runs.
            directory: an existing, empty directory.
        """
        ...


Format = str | Exporter | Callable[[], Exporter]


def check_format(format: str) -> None:
    """Raises ConfigError for a text that is neither a known format nor the name of a plug-in; imports nothing."""
    if format in EXPORTERS:
        return
    if ":" not in format:
        raise ConfigError(
            f"expected a format, one of {', '.join(EXPORTERS)}, or 'pkg.mod:name' of an exporter of your own, got "
            f"{format!r}{did_you_mean(format, EXPORTERS)}"
        )
    absolute_name(format)


def is_builtin_exporter(exporter: Exporter) -> bool:
    """Whether an exporter comes with autoprune; users' exporters get copies of what they could change."""
    return type(exporter).__module__.startswith("autoprune.")


def files_of(exporter: Exporter, directory: Path) -> list[Path]:
    """The files that an exporter has written, sorted. PluginError if there are none, or links, which a move breaks."""
    written = sorted(directory.rglob("*"))
    if links := [str(path.relative_to(directory)) for path in written if path.is_symlink()]:
        raise PluginError(
            f"expected the exporter {exporter.name!r} to write files, but it wrote the links {', '.join(links)}. Copy "
            f"what they point to. {_TEST}"
        )
    files = [path for path in written if path.is_file()]
    if not files:
        raise PluginError(
            f"expected the exporter {exporter.name!r} to write at least one file, but it wrote none. {_TEST}"
        )
    return files


def find_exporter(format: Format) -> Exporter:
    """The exporter of a format: a known name, the name of a plug-in, an exporter, or a function that makes one.

    Raises:
        ConfigError: the name is not known.
        PluginError: the plug-in cannot be imported or made, or lacks attributes of an exporter.
    """
    given: object = format
    if isinstance(format, str):
        check_format(format)
        given = load_plugin(EXPORTERS.get(format, format))
    made = given if isinstance(given, Exporter) and not isinstance(given, type) else _made(given)
    if not isinstance(made, Exporter) or not isinstance(made.name, str) or not callable(made.write):
        raise PluginError(
            f"expected an exporter with a name and write(network, facts, example, directory), got a "
            f"{type(made).__name__}. {_TEST}"
        )
    return made


def _made(given: object) -> object:
    if not callable(given):
        return given
    try:
        return given()
    except Exception as error:
        raise PluginError(
            f"making the exporter {plugin_name(given)} raised {type(error).__name__}: {error}. {_TEST}"
        ) from error
