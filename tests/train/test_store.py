"""Finished runs in a database: kept together, never twice, and never another job's."""

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from train._small import examples
from unbraid.errors import CheckpointError
from unbraid.train import Store
from waiting import HANGS

ASKED, RESULT = {"depth": 20, "seed": 0}, {"test_error": 31.5, "diverged": None}


def store(path, **options):
    return Store(path, **{"job": "sweep", "data": examples(), **options})


def test_what_was_kept_is_there_when_opened_again(tmp_path):
    path = tmp_path / "runs.sqlite"
    with store(path) as kept:
        assert len(kept) == 0
        kept.add([(ASKED, RESULT), ({"depth": 20, "seed": 1}, {"test_error": None})])
    with store(path) as kept:
        assert len(kept) == 2
        assert kept.result({"seed": 0, "depth": 20}) == RESULT  # in any order of keys
        assert kept.result({"depth": 20, "seed": 2}) is None
    assert [file.name for file in tmp_path.iterdir()] == ["runs.sqlite"]  # the log is folded in


def test_the_log_is_written_ahead(tmp_path):
    with store(tmp_path / "runs.sqlite"):
        other = sqlite3.connect(tmp_path / "runs.sqlite")
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()


def test_runs_added_together_are_kept_together_or_not_at_all(tmp_path):
    with store(tmp_path / "runs.sqlite") as kept:
        kept.add([(ASKED, RESULT)])
        with pytest.raises(CheckpointError, match="a run is there already: another process fills the same file"):
            kept.add([({"depth": 99, "seed": 0}, RESULT), (ASKED, RESULT)])
        assert kept.result({"depth": 99, "seed": 0}) is None
        assert len(kept) == 1


def other_application(path):
    with store(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.close()


def other_tables(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE holidays (place TEXT)")
    connection.close()


def newer(path):
    with store(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (other_application, "this SQLite file is not unbraid's; choose another file"),
        (other_tables, "this SQLite file is not unbraid's; choose another file"),
        (newer, "keeps runs in format 1; this file is of format 2"),
        (lambda path: path.write_text("a shopping list, longer than a header of 100 bytes" * 9), "not a database"),
        (lambda path: path.mkdir(), "unable to open database file"),
    ],
)
def test_files_of_others_are_refused(tmp_path, make, text):
    path = tmp_path / "runs.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(CheckpointError, match=text):
        store(path)
    assert before == (path.read_bytes() if path.is_file() else None)


def test_another_job_or_data_set_is_refused(tmp_path):
    path = tmp_path / "runs.sqlite"
    with store(path):
        pass
    with pytest.raises(CheckpointError, match='its job is "sweep", and "study" is asked for'):
        store(path, job="study")
    with pytest.raises(CheckpointError, match="its data set's train is 330, and 300 is asked for"):
        store(path, data=examples(train=300))
    changed = replace(examples(), train_inputs=-examples().train_inputs)
    with pytest.raises(CheckpointError, match=r"its data set's sha256 is .*…\", and .*…\" is asked for"):
        store(path, data=changed)


def test_there_is_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder to keep finished runs in"):
        store(tmp_path / "missing" / "runs.sqlite")


@pytest.mark.parametrize(
    ("pragma", "text"),
    [
        ("max_page_count = 1", "cannot be kept here: database or disk is full. What was kept before is untouched"),
        ("query_only = 1", "cannot be kept here: attempt to write a readonly database"),
    ],
)
def test_a_full_or_a_read_only_disk(tmp_path, pragma, text):
    """SQLite's own limits stand for the disk's: they end in the same errors."""
    with store(tmp_path / "runs.sqlite") as kept:
        kept.add([(ASKED, RESULT)])
        kept._connection.execute(f"PRAGMA {pragma}")
        with pytest.raises(CheckpointError, match=text):
            kept.add([({"depth": 20, "seed": 1}, {"history": "x" * 100_000})])
        assert kept.result(ASKED) == RESULT
        assert len(kept) == 1


def test_killed_writers_keep_what_they_said_they_kept(tmp_path):
    """Writers add three runs at a time, say so, and are killed: each three is there whole, and each that was said."""
    program = [sys.executable, str(Path(__file__).with_name("_killed_store.py")), str(tmp_path / "runs.sqlite")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    said, there = json.loads(done.stdout)
    assert len(said) >= 10
    assert len(set(there)) == len(there)
    assert len(there) % 3 == 0
    assert set(said) <= {number // 3 for number in there}
    assert sorted(there) == list(range(len(there)))
