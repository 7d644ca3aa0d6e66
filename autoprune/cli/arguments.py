"""The arguments that several commands share, with their help, and commands as users type them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from autoprune.config import JobSpec

Config = Annotated[
    Path,
    typer.Argument(
        help="A job file: your own, or one that comes with autoprune, such as configs/quickstart.yaml.",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Argument(help="The folder of a run, such as results/quickstart.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODULE:FUNCTION", help="The function that builds the model, for a run started from Python."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="MODULE:FUNCTION", help="The function that builds the data, for a run started from Python."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job, such as search.evaluations=100."),
]
PICKS = (
    "The network to choose. 'macs<=0.5' chooses the best measured network within bounds on costs (a value up to 1 is a "
    "share of the dense network's cost). 'accuracy>=0.97' chooses the cheapest network, by the first cost, within "
    "bounds on measurements; bounds on both choose the best measured network. 'agreement>=0.97' bounds the share of "
    "report examples on which a network predicts the dense network's class, by the lower end of its 95 % interval. "
    "'#3' chooses that row of the front, and '2-2-2-4' that candidate."
)
FORMATS = (
    "The format to write. 'autoprune' writes recipe.json and weights.safetensors; 'pt2' writes network.pt2, a "
    "torch.export program; 'transformers' writes a checkpoint folder; 'pkg.mod:name' or 'path/to/file.py:name' calls "
    "an exporter of your own."
)
Pick = Annotated[str, typer.Option(metavar="WHICH", help=PICKS)]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write; it must not exist yet.")]
Plain = Annotated[bool, typer.Option("--plain", help="Show progress as lines, for a log.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


class Format(StrEnum):
    """How a front is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def read_run(
    command: str,
    folder: Path,
    options: Mapping[str, object],
    settings: list[str] | None,
    model: str | None,
    data: str | None,
) -> JobSpec:
    """Reads the job of a run for a command.

    Args:
        command: the name of the command.
        folder: the run folder.
        options: the options of the command as typed, without --set, --model and --data; None is left out.
        settings: the values of --set.
        model: the value of --model.
        data: the value of --data.
    """
    from autoprune import config

    typed = _as_typed(command, folder, {**options, "--model": model, "--data": data})
    return config.load_run(folder, _with_factories(settings, model, data), typed)


def _with_factories(settings: list[str] | None, model: str | None, data: str | None) -> list[str]:
    """The settings, with the values of --model and --data in the form that --set takes."""
    named = {"model": model, "data": data}
    return [*(f"{key}={json.dumps({'call': name})}" for key, name in named.items() if name), *(settings or ())]


def _as_typed(command: str, folder: Path, options: Mapping[str, object]) -> str:
    """A command as the user types it, without --set."""
    given = [word for key, value in options.items() if value is not None for word in (key, str(value))]
    return shlex.join(["autoprune", command, str(folder), *given])
