"""A store that somebody else made or changed: refused before it is used, in bounded time and memory."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from cli._run import invoke
from train._small import examples
from unbraid import _resume_file, _schema
from unbraid._resume_file import ResumeFile
from unbraid.errors import CheckpointError
from unbraid.train import Store

ASKED, RESULT = {"depth": 20, "seed": 0}, {"test_error": 31.5, "diverged": None}
RUNS = _resume_file._TABLES[1]


@pytest.fixture
def path(tmp_path):
    """A store with one run."""
    path = tmp_path / "runs.sqlite"
    with store(path) as kept:
        kept.add([(ASKED, RESULT)])
    return path


def store(path):
    return Store(path, job="sweep", data=examples())


def change(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS number, 'x' AS asked, "
SCHEMAS = {
    "an endless view": ["DROP TABLE runs", f"CREATE VIEW runs AS {ENDLESS} 'x' AS result FROM n"],
    "an endless view of the job": ["DROP TABLE job", f"CREATE VIEW job AS {ENDLESS} 'x' AS name FROM n"],
    "a view that fills the memory": [
        "DROP TABLE runs",
        "CREATE VIEW runs AS SELECT 1 AS number, 'x' AS asked, hex(zeroblob(400000000)) AS result",
    ],
    "a column that fills the memory": [
        "DROP TABLE runs",
        "CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, asked TEXT NOT NULL UNIQUE,"
        " result TEXT GENERATED ALWAYS AS (hex(zeroblob(400000000))), finished TEXT NOT NULL)",
    ],
    "a default that fills the memory": ["ALTER TABLE runs ADD COLUMN more TEXT DEFAULT (hex(zeroblob(400000000)))"],
    "a trigger that deletes": ["CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END"],
    "a trigger on the job": ["CREATE TRIGGER t AFTER UPDATE ON job BEGIN DELETE FROM job; END"],
    "an index with an expression": ["CREATE INDEX i ON runs (hex(zeroblob(length(asked))))"],
    "an index that is not ours": ["CREATE INDEX i ON runs (finished)"],
    "one more table": ["CREATE TABLE more (x)"],
    "a check": ["DROP TABLE runs", RUNS.removesuffix(")") + ", CHECK (length(hex(zeroblob(400000000)))))"],
    "another case": ["DROP TABLE runs", RUNS.replace("runs", "RUNS")],
    "no table": ["DROP TABLE runs"],
    "a virtual table": ["CREATE VIRTUAL TABLE v USING fts5(x)"],
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_schema_that_is_not_ours_to_the_letter_is_refused(path, case):
    try:
        change(path, *SCHEMAS[case])
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite cannot make it: {error}")
    with pytest.raises(CheckpointError, match="this file was changed by something else than unbraid: in its schema "):
        store(path)


@pytest.mark.parametrize("case", ["an endless view", "a view that fills the memory"])
def test_what_a_statement_takes_is_bounded_too(path, case, monkeypatch):
    """Were the schema not looked at."""
    change(path, *SCHEMAS[case])
    monkeypatch.setattr(_resume_file, "differs", lambda *_: None)
    monkeypatch.setattr(_schema, "_STEPS", 1_000_000)
    message = "interrupted" if "endless" in case else "string or blob too big"
    with store(path) as kept, pytest.raises(CheckpointError, match=f"cannot be kept here: {message}"):
        kept.all()


def test_an_honest_store_stays_within_the_bounds(tmp_path, monkeypatch):
    """With half of the room for bytes and rows, and none beside."""
    monkeypatch.setattr(_schema, "_STEPS", 0)
    monkeypatch.setattr(_schema, "_STEPS_A_BYTE", 2)
    monkeypatch.setattr(_schema, "_STEPS_A_ROW", 500)
    monkeypatch.setattr(_schema, "_EVERY", 100)
    with ResumeFile(tmp_path / "runs.sqlite", job="x", about={}) as kept:
        kept.add([({"n": n}, {}) for n in range(5000)])
    with ResumeFile(tmp_path / "runs.sqlite", job="x", about={}) as kept:
        assert len(kept) == len(kept.all()) == 5000
        assert kept.result({"n": 4999}) == {}


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_lies_beside_it_is_ordinary(path, tmp_path, suffix, kind):
    """SQLite waits for a pipe, and writes through a link over what that shows."""
    letter, file = tmp_path / "letter.txt", path.with_name(path.name + suffix)
    letter.write_text("precious")
    file.unlink(missing_ok=True)
    if kind == "link" and not suffix:
        return  # a store may be a link to another place
    {"pipe": os.mkfifo, "link": lambda at: at.symlink_to(letter), "folder": os.mkdir}[kind](file)
    with pytest.raises(CheckpointError, match="unable to open database file: this is no ordinary file"):
        store(path)
    assert letter.read_text() == "precious"


ADDS = """
import sys
from unbraid._resume_file import ResumeFile
path, name = sys.argv[1:]
for n in range(40):
    with ResumeFile(path, job="x", about={}) as kept:
        kept.add([({"who": name, "n": n}, {})])
"""


def test_two_processes_on_one_store(tmp_path):
    """From the first moment, when it is made; each adds its own, and all are there."""
    path = tmp_path / "runs.sqlite"
    command = [sys.executable, "-c", ADDS, str(path)]
    both = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in ("a", "b")]
    assert [process.communicate()[1] for process in both] == ["", ""]
    with ResumeFile(path, job="x", about={}) as kept:
        assert sorted((asked["who"], asked["n"]) for asked, _ in kept.all()) == [
            (name, n) for name in ("a", "b") for n in range(40)
        ]


SWEEP = "depth = 1\nwidth = 4\nepochs = 1\nbatch_size = 4000\nseeds = 1\n"


@pytest.mark.parametrize(
    "result", ["{}", '{"test_error": "x"}', '{"test_error": 1.0, "diverged": null}', '{"test_error": [1]}', "[1]", "3"]
)
def test_a_result_that_is_none_ends_in_one_line(tmp_path, result):
    file = tmp_path / "grid.toml"
    file.write_text(SWEEP)
    assert invoke("sweep", str(file)).status == 0
    change(tmp_path / "grid.sqlite", f"UPDATE runs SET result = '{result}'")
    said = invoke("sweep", str(file))
    assert (said.status, said.stderr.count("\n")) == (2, 1), said.stderr
    assert "grid.sqlite: " in said.stderr
