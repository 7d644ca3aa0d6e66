"""The command line: it parses arguments, calls `autoprune.run` and prints the result. It holds no other logic.

Exit codes: 0 for success; 2 for a wrong config, argument or model; 1 for a failed run; 130 after SIGINT; 143 after
SIGTERM.
"""

from __future__ import annotations

import os
import sys

from autoprune.cli.auditing import audit
from autoprune.cli.commands import app
from autoprune.cli.harming import harm
from autoprune.cli.recovering import recover
from autoprune.cli.signals import INTERRUPTED

__all__ = ["app", "main"]

app.command()(recover)
app.command()(audit)
app.command()(harm)


def main() -> None:
    """Runs the console script. Plug-ins in the current directory can be imported, as with `python -m`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app(prog_name="autoprune")
    except SystemExit as ending:
        if ending.code in INTERRUPTED:  # everything is closed by now, and unloading large libraries takes seconds
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.code)
        raise
