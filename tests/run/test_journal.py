"""The journal: what is appended is there again, a torn end costs nothing else, damage is named, one writer only."""

import logging
import multiprocessing
import os

import pytest

from autoprune.errors import JournalError, JournalLocked
from autoprune.run.journal import Journal, encode, read_journal

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
