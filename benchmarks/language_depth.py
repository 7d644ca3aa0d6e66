"""Widths alone against depth and width: the perplexity of a language model's fronts within shares of its MACs.

    python benchmarks/language_depth.py FOLDER TEXT

FOLDER, TEXT and rows are those of language_models.py; every search has 100 evaluations, with three seeds, each of which
also assigns the sequences to the sets for calibration and selection anew.
"""

from __future__ import annotations

import sys
import time
from itertools import product

from language_models import searched, within_shares
from tables import write_table

EVALUATIONS, SEEDS = 100, 3


def main() -> None:
    folder, file = sys.argv[1:]
    rows = []
    for seed, depth in product(range(SEEDS), (False, True)):
        started = time.process_time()
        front = searched(folder, file, EVALUATIONS, seed=seed, depth=depth)
        seconds = round(time.process_time() - started)
        first = {"seed": seed, "space": "depth and width" if depth else "width", "seconds": seconds}
        rows += within_shares(front, first)
        write_table("language_depth.csv", "python benchmarks/language_depth.py stories260K tinystories.txt", rows)
        print(*rows[-4:], sep="\n", flush=True)


if __name__ == "__main__":
    main()
