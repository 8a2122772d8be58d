"""Finished runs in SQLite files: `train.Store`."""

import sqlite3
from functools import cache
from pathlib import Path

import torch

from fuzz._changes import NUMBERS, changed_bytes
from fuzz._source import Source, often, pick

SQL = (
    *(
        "UPDATE job SET name = {}",
        "UPDATE job SET data = {}",
        "UPDATE runs SET result = {}",
        "UPDATE runs SET asked = {}",
    ),
    *("DELETE FROM job", "DELETE FROM runs", "DROP TABLE job", "DROP TABLE runs", "PRAGMA user_version = 7"),
    *("ALTER TABLE job RENAME TO other", "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM job; END"),
    *("PRAGMA application_id = 0", "INSERT INTO job VALUES ({}, {})", "CREATE INDEX i ON runs (hex(result))"),
    *("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END", "CREATE TABLE more (x DEFAULT ({}))"),
    "CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    "CREATE VIEW runs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} AS result FROM n",
)
VALUES = ("NULL", "1", "1.5", "x'00ff'", "''", "'[]'", "'{}'", "'{\"a\": 1}'", "'null'", "zeroblob(100000)", "'\"x'")


@cache
def examples():
    from unbraid import data

    y = torch.arange(8) % 2
    return data.from_arrays(torch.arange(16.0).reshape(8, 2).numpy(), y.numpy())


def case(source: Source, folder: Path):
    from unbraid.train import Store

    path = folder / "runs.sqlite"
    for old in folder.glob("runs.sqlite*"):
        old.unlink()
    asked = {"depth": 1}
    with Store(path, job="sweep", data=examples()) as store:
        store.add([(asked, {"test_error": 1.0})])
    if often(source):
        connection = sqlite3.connect(path, isolation_level=None)
        for _ in range(source.number(1, 3)):
            try:
                text = pick(source, SQL)
                connection.execute(text.format(*(pick(source, VALUES) for _ in range(text.count("{}")))))
            except sqlite3.Error:
                pass
        connection.close()
    else:
        path.write_bytes(changed_bytes(source, path.read_bytes()))
    number = pick(source, NUMBERS[:9])

    def load() -> None:
        with Store(path, job="sweep", data=examples()) as store:
            store.result(asked)
            store.add([({"depth": 2, "seed": number}, {"test_error": 2.0})])
            assert len(store) >= 0

    return load
