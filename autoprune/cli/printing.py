"""What a command prints besides tables: remarks, the end of a run, and a command to type next."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from autoprune.config import JobSpec
    from autoprune.run import RunResult


def told(spec: JobSpec) -> JobSpec:
    """Returns the job after printing each remark on how it was read, one line each, on standard error."""
    for remark in spec.remarks:
        typer.echo(remark, err=True)
    return spec


def print_result(result: RunResult, folder: Path) -> None:
    """Prints the front, the folder that holds it, and a command to type next."""
    from autoprune import console

    console.print_members(result.members, numbers=range(1, len(result.members) + 1))
    console.print_dense(result.members)
    console.print_left_out(result.left_out)
    typer.echo(f"sums:   {result.additivity}")
    if result.remark:
        typer.echo(f"search: {result.remark}")
    if result.failures:
        typer.echo(f"failed: {result.failures}")
    typer.echo(f"ended:  {result.ended}\nrun:    {folder}\nreport: {folder / 'report.html'}")
    if result.members:
        ratio = result.members[len(result.members) // 2].ratios["macs"]
        pick = f"macs<={math.ceil(ratio * 100) / 100:g}"  # rounded up, so that it picks a network
        name = shlex.quote(str(folder))
        typer.echo(f"next:   autoprune export {name} --pick '{pick}' --out {name}-small")


def print_export(out: Path, format: str = "autoprune") -> None:
    loading = {
        "autoprune": f"; load it with autoprune.load(fresh_model, {str(out)!r})",
        "transformers": f"; load it with from_pretrained({str(out)!r}), as its README.md shows",
        "pt2": f"; load it with torch.export.load({str(out / 'network.pt2')!r}).module()",
    }
    typer.echo(f"written to {out}{loading.get(format, '')}")
