"""What is said while a search runs."""

import json

from autoprune.run.drive import resume, search


def remarks(folder):
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [(line["done"], line["remark"]) for line in lines if line["event"] == "remark"]


def test_what_a_searcher_remarks_is_in_the_progress_and_once_in_the_events(job, tmp_path):
    said = []
    small = job("surrogate", 16, options={"population": 5, "imagined": 20})
    search(small, tmp_path / "run", progress=lambda step: said.append(step.message))
    told = remarks(tmp_path / "run")
    assert told[0][0] == 10  # the first round has no predictions
    assert {done for done, _ in told} <= {10, 15}
    assert all("predicted with tau " in text for _, text in told)
    assert any(message.endswith(told[-1][1]) for message in said)


def test_a_searcher_that_learns_between_rounds_is_resumed_as_if_never_interrupted(job, tmp_path):
    options = {"population": 5, "imagined": 20}
    search(job("surrogate", 16, options=options), tmp_path / "whole")
    cut = job("surrogate", 16, options=options)
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    for file in (tmp_path / "whole").iterdir():
        if file.is_file() and file.name not in ("front.csv", "journal.jsonl"):
            (tmp_path / "cut" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "cut" / "journal.jsonl").write_text("".join(lines[: len(lines) // 2]))
    resume(cut, tmp_path / "cut")
    assert (tmp_path / "cut" / "front.csv").read_bytes() == (tmp_path / "whole" / "front.csv").read_bytes()
