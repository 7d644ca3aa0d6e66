"""A run folder, opened later: the same front without a new evaluation, and a longer search that starts from it.

python examples/open_again.py [EVALUATIONS] [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import autoprune
from autoprune.data import digits
from autoprune.zoo import digits_resnet


def search(evaluations: int, **options: Any) -> Any:
    """The same search each time, shorter or longer."""
    return autoprune.search(digits_resnet(), digits(), evaluations=evaluations, seed=0, compensation="none", **options)


def main(evaluations: int, folder: Path) -> None:
    first = search(evaluations, out=folder / "run")
    print(f"searched: {len(first)} networks")

    again = autoprune.open_run(folder / "run", digits_resnet(), digits())  # of a run that was cut short: .resume()
    print(f"opened again: {'the same' if list(again) == list(first) else 'another'} front")
    again.pick("macs<=0.5").export(folder / "small")

    longer = search(2 * evaluations, out=folder / "longer", fork=folder / "run")
    print(f"twice as long, with the evaluations of the first run: {len(longer)} networks")
    for member in longer:
        print(f"{member['macs_ratio']:.3f} of the MACs, accuracy {member['accuracy']:.3f}")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as scratch:
        main(count, Path(sys.argv[2] if len(sys.argv) > 2 else scratch))
