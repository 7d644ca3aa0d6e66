"""Every error autoprune raises on purpose, one tree.

AutopruneError
├── ConfigError          a job file, an override or an argument is wrong (all mistakes at once)
├── PluginError          a plug-in cannot be imported or does not keep its contract
├── SpaceError           units, levels and patterns do not make a search space
├── InfeasibleBudget     a budget outside what the space can reach
├── UnsupportedModel     the network cannot be traced, has no parameters, or nothing in it can be pruned
├── DataError            data of the wrong shape or type, with NaN, or shared between sets that must be disjoint
├── VerifyError          a pruned network does not compute what its masked original computes
├── RecipeError          an export does not fit the network it is loaded into
├── ExportError          a network cannot be written in a format, or what was written computes something else
├── BankError            a bank on disk is damaged or belongs to something else
├── DeviceMemoryError    a device has too little memory for a pass of one example
├── TrainingDiverged     a fine-tune ended in numbers that are not finite
├── RunExists            the run folder exists already; it is never overwritten
├── RunNotFound          no run in that folder
├── RunDamaged           a file of a run folder was changed after it was written
├── JournalError         a run folder's journal cannot be used as it is
│   ├── JournalMismatch  resuming would not repeat the journal
│   └── JournalLocked    another process is writing to this run
└── RunFailed            the search failed; everything measured is in the journal

Interrupted            SIGINT or SIGTERM arrived: a KeyboardInterrupt, which no handler of errors catches

Each is also the builtin a caller would expect. A message says what was expected, what came, where, and what to do.
`did_you_mean` adds the closest known word to it, and `shortened` cuts a long value.
"""

import difflib
from collections.abc import Iterable


class AutopruneError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 2


class ConfigError(AutopruneError, ValueError):
    """A job file, an override or an argument is wrong. `problems` lists every mistake, one sentence each."""

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(AutopruneError, ImportError):
    """A plug-in cannot be imported or does not keep its contract."""


class SpaceError(AutopruneError, ValueError):
    """Units, levels and patterns do not make a search space."""


class InfeasibleBudget(AutopruneError, ValueError):
    """A budget outside what the space can reach; the message names the least reachable cost."""


class UnsupportedModel(AutopruneError, ValueError):
    """The network cannot be traced, has no parameters, or nothing in it can be pruned."""


class DataError(AutopruneError, ValueError):
    """Data of the wrong shape or type, with NaN, or shared between sets that must be disjoint."""


class VerifyError(AutopruneError, RuntimeError):
    """A pruned network does not compute what its masked original computes."""

    exit_code = 1


class RecipeError(AutopruneError, ValueError):
    """An export does not fit the network it is loaded into."""


class ExportError(AutopruneError, RuntimeError):
    """A network cannot be written in a format, or what was written computes something else."""

    exit_code = 1


class BankError(AutopruneError, ValueError):
    """A bank on disk is damaged or belongs to another model, data, criterion or version."""


class DeviceMemoryError(AutopruneError, MemoryError):
    """A device has too little memory for a pass of one example."""

    exit_code = 1


class TrainingDiverged(AutopruneError, ArithmeticError):
    """A fine-tune ended in numbers that are not finite."""

    exit_code = 1


class RunExists(AutopruneError, FileExistsError):
    """The run folder exists already; it is never overwritten."""


class RunNotFound(AutopruneError, FileNotFoundError):
    """The folder holds no run."""


class RunDamaged(AutopruneError, ValueError):
    """A file of a run folder was changed after it was written; the message says how to write it again."""

    exit_code = 1


class JournalError(AutopruneError, ValueError):
    """A run folder's journal cannot be used as it is."""

    exit_code = 1


class JournalMismatch(JournalError):
    """Resuming would not repeat the journal."""


class JournalLocked(JournalError):
    """Another process is writing to this run."""


class RunFailed(AutopruneError, RuntimeError):
    """The search failed; everything measured is in the journal."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; `exit_code` is the one that shells expect."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.exit_code = 128 + signum


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint " (did you mean ...?)" for a word close to a known one, with a leading space; else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shortened(text: str) -> str:
    """A text of at most 80 characters for a message; a longer one loses its end."""
    return text if len(text) <= 80 else f"{text[:77]}..."
