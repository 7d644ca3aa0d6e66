"""The table of the zoo: its columns, the file, what a row's stages add up to, the totals."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

COLUMNS = (
    *("library", "model", "input", "params", "macs", "forward_s", "trace_s", "units", "frozen_share", "kept_macs"),
    *("kept_params", "verify_error", "verify_random", "outcome", "largest_frozen", "uncounted"),
    *("train_mode", "unmet_share", "unmet", "without_reason"),
    *("tp_result", "tp_s", "tp_kept", "tp_checked"),
)
TOLERANCE = 1e-4
PARTLY = 0.1  # frozen share of the MACs above which a network is only partly prunable
SLOW_S = 20


def outcome(pieces: Row, end: str) -> str:
    """One word, and why; `end` says how the process ended, empty where it ran to its end.

    "not run" is a model that does not build or run by itself, "wrong" a network that shrink made and that computes
    something else than the masked original or has other parameters than the cost polynomial says, or a frozen part
    without a reason.
    """
    stage = pieces.get("stage", "start")
    if end:
        return f"{'not run' if stage in ('start', 'build', 'forward') else 'crash'}: {stage}: {end}"
    if not pieces["units"]:
        return f"frozen: {pieces['largest_frozen']}"
    for column in ("verify_error", "verify_random"):
        if not pieces[column] <= TOLERANCE:
            return f"wrong: {column} {pieces[column]:.2g}"
    if pieces["params_off"]:
        return f"wrong: {pieces['params_off']:+.0f} parameters against the cost polynomial"
    if pieces["without_reason"]:
        return f"wrong: {pieces['without_reason']} frozen parts without a reason"
    return "partly" if pieces["frozen_share"] > PARTLY else "ok"


def formatted(row: Row) -> dict[str, str]:
    return {column: _text(row.get(column, "")) for column in COLUMNS}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else _whole(value)


def _whole(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write(path: Path, comments: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Replaces the file in one step, so that it is whole at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        file.writelines(f"# {comment}\n" for comment in comments)
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def summary(rows: Sequence[dict[str, str]]) -> list[str]:
    """The totals, one line each."""
    ran = [row for row in rows if not row["outcome"].startswith("not run")]
    if not ran:
        return [f"{len(rows)} models, none of which ran"]
    errors = [
        (float(row[column]), _name(row)) for row in ran for column in ("verify_error", "verify_random") if row[column]
    ]
    tally = Counter(row["outcome"].split(":")[0] for row in ran)
    lines = [
        f"{len(rows)} models, {len(rows) - len(ran)} of which do not run by themselves",
        f"without a crash {_share(len(ran) - tally['crash'], len(ran))}: {_tally(tally)}",
        f"more than 90 % of the MACs prunable {_share(sum(map(_mostly_prunable, ran)), len(ran))}",
        "largest verify error " + ("{:.2g} ({})".format(*max(errors)) if errors else "unknown: none was verified"),
        f"train mode: {_tally(Counter(row['train_mode'] for row in ran if row['train_mode']))}",
        f"with parameters that no pass reads: {sum(bool(row['unmet']) for row in ran)}",
        f"traced in more than {SLOW_S} s: {', '.join(filter(None, map(_slow, ran))) or 'none'}",
    ]
    rival = [row for row in ran if row["tp_result"]]
    if rival:
        tally = Counter(row["tp_result"].split(":")[0].split(" in ")[0] for row in rival)
        lines.append(f"torch-pruning works {_share(tally['works'], len(rival))}: {_tally(tally)}")
    return lines


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({count / total:.1%})"


def _tally(tally: Counter[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in tally.most_common())


def _mostly_prunable(row: dict[str, str]) -> bool:
    return row["outcome"].split(":")[0] in ("ok", "partly") and float(row["frozen_share"]) < PARTLY


def _slow(row: dict[str, str]) -> str:
    late = row["trace_s"] and float(row["trace_s"]) > SLOW_S
    return f"{_name(row)} {row['trace_s']} s" if late else ""


def _name(row: dict[str, str]) -> str:
    return f"{row['library']}/{row['model']}"
