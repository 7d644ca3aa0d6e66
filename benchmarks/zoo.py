"""What autoprune makes of the models people have, and what torch-pruning makes of them: one row a model.

    python benchmarks/zoo.py

Models of torchvision, timm and transformers with random weights (random norms too), at 64x64 where they run with it:
structure, share of the MACs that no unit touches, MACs at half of every unit, proof of the network so made and of one
with random counts; beside it the default call of torch-pruning on the same model and input (see zoo/rival.py). `macs`
are of one example. Both modes are traced and verified: `train_mode` says whether the forward pass in train mode has the
operators of eval mode, `unmet_share` is the share of the parameters that no pass reads. trace_s is find_structure with
all it checks. forward_s is one plain pass, the median of three. MACs of torch-pruning's column are counted while the
network runs (torch.utils.flop_counter), ours by the cost polynomials.

Every measurement is a process of its own with one thread (OMP_NUM_THREADS to change): a crash is a row. The file is
whole after every row; `--resume` goes on from there. `--summary` prints the totals of the file, `--check` only builds
and runs the models. Needs: pip install torchvision timm transformers torch-pruning
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

from zoo.models import Entry, zoo
from zoo.table import Row, formatted, outcome, read, summary, write

HERE = Path(__file__).parent
LIMIT_S = 300
RIVAL_LIMIT_S = 300  # of the process; zoo/rival.py gives torch-pruning 60 s of processor time in it
LIBRARIES = ("torchvision", "timm", "transformers", "torch-pruning")


def main() -> None:
    options = arguments()
    if options.summary:
        print(*summary(read(options.out)), sep="\n")
        return
    require(LIBRARIES if options.rival and not options.check else LIBRARIES[:-1])
    entries = [entry for entry in zoo() if fnmatch(entry.name, options.only)]
    if not entries:
        raise SystemExit(f"no model's library/name matches {options.only!r}, e.g. 'timm/*' or '*/resnet18'")
    if options.check:
        check(entries)
        return
    benchmark(entries, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="shell pattern on library/model")
    parser.add_argument("--rival", action=argparse.BooleanOptionalAction, default=True, help="run torch-pruning too")
    parser.add_argument("--jobs", type=int, default=1, help="models at once; more disturbs the seconds")
    parser.add_argument("--resume", action="store_true", help="keep the rows in the file, add the missing ones")
    parser.add_argument("--summary", action="store_true", help="print the totals of the file, run nothing")
    parser.add_argument(
        "--check", action="store_true", help="only build and run the models; print seconds of a forward"
    )
    parser.add_argument("--out", type=Path, default=Path("results/zoo.csv"))
    return parser.parse_args()


def require(libraries: Sequence[str]) -> None:
    missing = [name for name in libraries if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not installed: pip install {' '.join(libraries)}")


def check(entries: Sequence[Entry]) -> None:
    for entry in entries:
        pieces, end = measured("ours", entry, LIMIT_S, "trace")
        print(f"{entry.name:44} {entry.input_size:16}", end or f"{pieces['forward_s']:.3f} s", flush=True)


def benchmark(entries: Sequence[Entry], options: argparse.Namespace) -> None:
    kept = read(options.out) if options.resume and options.out.exists() else []
    rows = {f"{row['library']}/{row['model']}": row for row in kept}
    todo = [entry for entry in entries if entry.name not in rows]
    order = {entry.name: index for index, entry in enumerate(zoo())}
    pool = ThreadPoolExecutor(options.jobs)
    futures = [pool.submit(row_of, entry, options.rival) for entry in todo]
    try:
        for future in as_completed(futures):
            row = formatted(future.result())
            name = f"{row['library']}/{row['model']}"
            rows[name] = row
            ordered = sorted(rows, key=lambda key: order.get(key, -1))
            write(options.out, comments(options), [rows[key] for key in ordered])
            beside = f"; torch-pruning {row['tp_result']}" if row["tp_result"] else ""
            print(f"{name}: {row['outcome']}; {row['units']}{beside}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    print(*summary(list(rows.values())), sep="\n")


def comments(options: argparse.Namespace) -> list[str]:
    """The command, and the versions it ran with."""
    only = "" if options.only == "*" else f" --only '{options.only}'"
    packages = ("autoprune", "torch", *(LIBRARIES if options.rival else LIBRARIES[:-1]))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return [f"python benchmarks/zoo.py{only}{'' if options.rival else ' --no-rival'}", ", ".join(versions)]


def row_of(entry: Entry, rival: bool) -> Row:
    pieces, end = measured("ours", entry, LIMIT_S)
    row = {"library": entry.library, "model": entry.model, "input": entry.input_size, **pieces}
    row["outcome"] = outcome(pieces, end)
    if rival and pieces.get("forward_s") is not None:
        row |= rival_columns(*measured("rival", entry, RIVAL_LIMIT_S))
    return row


def rival_columns(pieces: Row, end: str) -> Row:
    """What torch-pruning did; a process that ended early failed in its hands only if it had begun to prune."""
    if not end:
        return pieces
    if "tp_result" in pieces:
        return pieces | {"tp_checked": f"no: {end}"}
    begun = pieces.get("stage") == "prune"
    return {"tp_result": end if end.startswith("no answer") else f"{'fails' if begun else 'not run'}: {end}"}


def measured(module: str, entry: Entry, limit: int, *last: str) -> tuple[Row, str]:
    """What the process wrote, stage after stage, and how it ended; empty when it ran to its end."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pieces"
        command = [sys.executable, "-m", f"zoo.{module}", entry.name, str(path), *last]
        try:
            done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=limit)
            end = "" if done.returncode == 0 else ended(done)
        except subprocess.TimeoutExpired:
            end = f"no answer in {limit} s"
        pieces = {key: value for piece in pieces_in(path) for key, value in piece.items()}
    return pieces, str(pieces.pop("error", end))


def ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def pieces_in(path: Path) -> Iterator[Row]:
    """A killed process may leave half a line at the end."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return map(json.loads, lines)


if __name__ == "__main__":
    main()
