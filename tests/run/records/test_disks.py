"""Disks that are full or may not be written to: told in a sentence, and what was there stays whole."""

import ctypes
import os
import resource
import sys

import pytest
from commands import STARTUP_SECONDS, assert_same_run, evaluations_in, finish, start, wait_until, write_job

from autoprune.errors import JournalError
from autoprune.run import drive, read_front, search
from autoprune.run.records.journal import Journal, encode, read_journal

linux = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes are Linux's")
DROP_BOUNDING_CAPABILITY, MAY_WRITE_ANYWHERE, MAY_READ_ANYWHERE = 24, 1, 2


@linux
def test_an_append_that_does_not_fit_is_an_error_and_what_was_written_before_is_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    record = {"text": "x" * 100}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.append(record)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(encode(record)) + 50, hard))
        try:
            with pytest.raises(JournalError, match="cannot be written: File too large. Its content is intact"):
                journal.append(record)
            assert read_journal(path) == [record]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.append(record)
    assert read_journal(path) == [record] * 3  # what did not fit came first when there was room again


@linux
def test_a_journal_that_is_left_while_the_disk_is_full_is_free_for_the_next_owner(tmp_path):
    path = tmp_path / "journal.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with pytest.raises(JournalError, match="cannot be written"), Journal(path) as journal:
            journal.append({"text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(path) as journal:
        journal.append({"kind": "after"})
    assert read_journal(path) == [{"kind": "after"}]


def test_a_report_that_fails_leaves_the_run_whole_and_says_how_to_make_it_again(job, tmp_path, monkeypatch, caplog):
    def broken(path):
        raise RuntimeError("no ink")

    monkeypatch.setattr(drive, "write_report", broken)
    result = search(job("uniform", 4), tmp_path / "run")
    assert read_front(tmp_path / "run") == list(result.members)
    assert "is not written: no ink. Try again with: autoprune report" in caplog.text


def test_events_that_cannot_be_written_leave_the_run_whole_and_are_told_once(job, tmp_path, caplog, monkeypatch):
    keep = drive.Events.keep

    def onto_a_folder(events, path):
        path.mkdir()
        keep(events, path)

    monkeypatch.setattr(drive.Events, "keep", onto_a_folder)
    result = search(job("uniform", 4), tmp_path / "run")
    assert read_front(tmp_path / "run") == list(result.members)
    assert caplog.text.count("the run goes on without it") == 1


@pytest.mark.faults
@pytest.mark.timeout(900)
@linux
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_search_whose_disk_fills_up_says_so_and_resumes_to_the_same_front(tmp_path, executor):
    job = write_job(tmp_path, executor, 60)
    finish(start("search", job, "--out", tmp_path / "whole"))
    run = tmp_path / "run"
    process = start("search", job, "--out", run)
    assert wait_until(lambda: len(evaluations_in(run)) > 5, STARTUP_SECONDS)
    known = evaluations_in(run)
    size = (run / "journal.jsonl").stat().st_size + 700
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
    _, errors = process.communicate()
    assert process.returncode == 1
    assert f"error: {run / 'journal.jsonl'} cannot be written: File too large" in errors
    assert f"autoprune resume {run}" in errors
    assert known <= evaluations_in(run)
    finish(start("resume", run))
    assert_same_run(run, tmp_path / "whole")


def without_rights():
    """In a process about to start: whoever owns it, permissions of files count."""
    libc = ctypes.CDLL(None)
    for right in (MAY_WRITE_ANYWHERE, MAY_READ_ANYWHERE):
        libc.prctl(DROP_BOUNDING_CAPABILITY, right, 0, 0, 0)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="the rights of root are dropped as Linux has them")
def test_a_folder_that_may_not_be_written_to_is_told_and_left_as_it_is(tmp_path):
    job = write_job(tmp_path, evaluations=5)
    finish(start("search", job, "--out", tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for path in ((tmp_path / "run"), *(tmp_path / "run").iterdir()):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    (tmp_path / "closed").mkdir(mode=0o555)
    try:
        for command, code, words in (
            (("resume", tmp_path / "run"), 1, "ermission denied"),
            (("search", job, "--out", tmp_path / "closed" / "run"), 2, "no right to write in"),
        ):
            process = start(*command, preexec_fn=without_rights)
            _, errors = process.communicate()
            assert process.returncode == code
            assert errors.startswith(f"error: {command[-1]}")
            assert words in errors
            assert "foreseen" not in errors
    finally:
        os.chmod(tmp_path / "run", 0o755)
        os.chmod(tmp_path / "closed", 0o755)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
