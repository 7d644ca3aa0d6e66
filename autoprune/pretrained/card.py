"""The model card of an exported checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_CARD = """---
library_name: transformers
tags: [pruned]
---

# {source}, pruned

Made from {source} by autoprune: layers are smaller, and weights are fitted to the original network's outputs.

| | |
|---|---|
{rows}

```python
from transformers import {auto}

model = {auto}.from_pretrained("FOLDER"{trust})
```
"""

_ORIGIN = """
## How it was made

```sh
autoprune search job.yaml --out RUN
autoprune export RUN --pick {candidate} --out FOLDER --format transformers
```

Examples: {examples}. job.yaml, with the names of files and folders alone:

```yaml
{job}```
"""


def model_card(
    source: str, auto: str, measured: Mapping[str, Any], origin: Mapping[str, Any], *, own_code: bool
) -> str:
    """The text of README.md: where the network comes from, its measurements, how it is loaded and how it was made.

    Args:
        source: the name of the original checkpoint.
        auto: the automatic class that loads the network.
        measured: its row of the front.
        origin: the job and the number of examples of each set, see run.results.exporter.ExportFacts; or nothing.
        own_code: whether the folder has a modelling file.
    """
    numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in numbers.items())
    card = _CARD.format(source=source, auto=auto, rows=rows, trust=", trust_remote_code=True" if own_code else "")
    if not origin:
        return card
    job = yaml.safe_dump(_without_folders(json.loads(json.dumps(origin["job"]))), sort_keys=False)
    examples = ", ".join(f"{count} to {name}" for name, count in origin["examples"].items())
    return card + _ORIGIN.format(candidate=measured.get("candidate", "PICK"), examples=examples, job=job)


def _without_folders(value: Any) -> Any:
    """A job's values; paths are cut to their last part, as a card is published and folders of a machine are not."""
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
