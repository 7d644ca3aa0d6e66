"""The journal: what is appended is there again, a torn end costs nothing else, damage is named, one writer only."""

import itertools
import logging
import multiprocessing
import os
import time
from collections import Counter, deque
from pathlib import Path

import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import JournalError, JournalLocked
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.loop.controller import Controller
from autoprune.run.records.journal import VERSION, Journal, encode, read_journal, repair_journal, told_evaluations
from autoprune.testing import synthetic_problem

WRITTEN = Path(__file__).parent / "journals"
RECORDS = [{"kind": "ask", "n": 1, "text": "é\n\u2028"}, {"kind": "tell", "value": 0.1}, {"kind": "tell", "value": 2}]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for record in RECORDS:
            journal.append(record)
    return path


def test_what_is_appended_is_read_back(path):
    assert read_journal(path) == RECORDS


def test_an_empty_journal_has_no_records(tmp_path):
    with Journal(tmp_path / "journal.jsonl"):
        pass
    assert read_journal(tmp_path / "journal.jsonl") == []


def test_any_cut_of_the_last_line_loses_that_line_alone(path, caplog):
    whole = path.read_bytes()
    last = len(encode(RECORDS[-1]))
    for missing in range(1, last + 1):
        path.write_bytes(whole[:-missing])
        with caplog.at_level(logging.WARNING), Journal(path) as journal:
            journal.append({"kind": "after"})
        assert read_journal(path) == [*RECORDS[:-1], {"kind": "after"}]
        assert ("torn" in caplog.text) == (missing < last)
        caplog.clear()


def test_a_changed_byte_before_the_end_is_named_by_line(path):
    whole = bytearray(path.read_bytes())
    whole[len(encode(RECORDS[0])) + 30] ^= 1
    path.write_bytes(whole)
    with pytest.raises(JournalError, match=r"journal.jsonl:2: expected a record with its checksum, got"):
        read_journal(path)


def test_a_second_writer_is_refused_with_the_owners_pid(path):
    with Journal(path), pytest.raises(JournalLocked, match=f"process {os.getpid()} on "):
        Journal(path).__enter__()


def test_a_journal_can_be_read_while_it_is_written(path):
    with Journal(path) as journal:
        journal.append({"kind": "more"})
        assert read_journal(path)[-1] == {"kind": "more"}


def _hold_and_die(path):
    with Journal(path):
        os._exit(1)


def test_the_lock_of_a_dead_process_is_free(path):
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 1
    with Journal(path) as journal:
        journal.append({"kind": "after"})
    assert read_journal(path) == [*RECORDS, {"kind": "after"}]


def test_nan_is_never_written(path):
    with Journal(path) as journal, pytest.raises(ValueError, match="JSON compliant"):
        journal.append({"value": float("nan")})
    assert read_journal(path) == RECORDS


# versions


class Repeating:
    """Asks for what a journal says was asked for."""

    def __init__(self, records):
        self.asked = deque(candidate for r in records if r["kind"] == "ask" for candidate in r["candidates"])

    def ask(self, n):
        return [Candidate(tuple(self.asked.popleft())) for _ in range(min(n, len(self.asked)))]

    def tell(self, evaluations):
        pass


@pytest.mark.parametrize("version", range(VERSION + 1))
def test_a_journal_of_every_version_is_read_and_replayed(version):
    records = read_journal(WRITTEN / f"version{version}.jsonl")
    statuses = Counter(evaluation.status for evaluation in told_evaluations(records))
    hung = version > 0  # in the second one, on worker processes, a candidate did not answer
    assert statuses == Counter(ok=5 - hung, failed=1, infeasible=2, timeout=1) - Counter(timeout=not hung)
    problem = synthetic_problem(units=3, levels=3, seed=1, budget=0.9).problem
    run = Controller(problem, Repeating(records), SerialEvaluator(None), budget=5, append=None)
    run.replay(records[1:])
    assert run.done == 5
    assert run.run() == "all evaluations are spent"


def test_a_journal_of_a_later_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(encode({"kind": "run", "version": VERSION + 1}) + b"whatever a line is then")
    before = path.read_bytes()
    for read in (read_journal, repair_journal, lambda path: Journal(path).__enter__()):
        with pytest.raises(JournalError, match=f"expected a journal of version {VERSION} at most, got version"):
            read(path)
        assert path.read_bytes() == before


# repair


def evaluation(number):
    return Evaluation(Candidate((number,))).to_json()


def journal_of(path, tells):
    lines = [encode(read_journal(WRITTEN / f"version{VERSION}.jsonl")[0], 1)]
    for number in range(tells):
        lines.append(encode({"kind": "ask", "n": 1, "candidates": [[number]]}, 2 * number + 2))
        lines.append(encode({"kind": "tell", "evaluation": evaluation(number)}, 2 * number + 3))
    path.write_bytes(b"".join(lines))
    return lines


def test_whatever_byte_is_changed_repair_keeps_every_other_evaluation(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = journal_of(path, 4)
    whole = path.read_bytes()
    ends = list(itertools.accumulate(map(len, lines)))
    for place in range(ends[0], len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        repair_journal(path)
        line = next(index for index, end in enumerate(ends) if place < end)
        both = whole[place : place + 1] == b"\n" and line + 1 < len(
            lines
        )  # without its end a line takes the next along
        lost = {(gone - 1) // 2 for gone in (line, line + both) if gone % 2 == 0}
        kept = [r["evaluation"]["levels"][0] for r in read_journal(path) if "evaluation" in r]
        assert kept == [number for number in range(4) if number not in lost]


def test_what_repair_takes_out_lies_beside_the_journal(tmp_path, caplog):
    path = tmp_path / "journal.jsonl"
    lines = journal_of(path, 3)
    damaged = lines[2].replace(b"ok", b"KO")
    path.write_bytes(b"".join([*lines[:2], damaged, *lines[3:]]))
    repair_journal(path)
    assert (tmp_path / "journal.damaged").read_bytes() == damaged
    assert [r["kind"] for r in read_journal(path)] == ["run", "ask", "answer", "answer"]
    assert "1 damaged lines are in journal.damaged; 2 evaluations after them are kept" in caplog.text


def test_repair_of_a_whole_journal_or_of_none_changes_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal_of(path, 3)
    before = path.read_bytes()
    repair_journal(path)
    assert path.read_bytes() == before
    repair_journal(tmp_path / "none.jsonl")
    assert {file.suffix for file in tmp_path.iterdir()} <= {".jsonl", ".lock"}


def test_without_its_first_line_a_journal_cannot_be_repaired(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = journal_of(path, 2)
    path.write_bytes(b"".join([lines[0][1:], *lines[1:]]))
    with pytest.raises(JournalError, match="the first line, which identifies the run, is damaged"):
        repair_journal(path)


# writers


def _append_in_turns(path, writer, count):
    """Takes the journal whenever it is free, for ten records at a time."""
    for start in range(0, count, 10):
        while True:
            try:
                with Journal(path) as journal:
                    for number in range(start, start + 10):
                        journal.append({"writer": writer, "number": number})
                break
            except JournalLocked:
                time.sleep(0.001)


@pytest.mark.faults
def test_ten_processes_that_append_two_hundred_records_each_lose_and_double_none(tmp_path):
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["autoprune.run.records.journal"])
    writers = [context.Process(target=_append_in_turns, args=(path, writer, 200)) for writer in range(10)]
    for process in writers:
        process.start()
    seen = 0
    while any(process.is_alive() for process in writers):
        records = read_journal(path)  # a reader meanwhile
        assert len(records) >= seen
        seen = len(records)
        time.sleep(0.01)
    assert [process.exitcode for process in writers] == [0] * 10
    records = read_journal(path)
    assert len(records) == 2000
    for writer in range(10):
        assert [r["number"] for r in records if r["writer"] == writer] == list(range(200))
