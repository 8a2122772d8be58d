"""Finished runs in one SQLite file, so that a job that was killed neither repeats nor loses one."""

from pathlib import Path
from typing import final

from unbraid._resume_file import ResumeFile
from unbraid.data import Dataset
from unbraid.train._description import describe_data

__all__ = ["Store"]


@final
class Store(ResumeFile):
    """The finished runs of one job on one data set, by what was asked for.

    Runs that are added together are kept together or not at all, at one moment; SQLite's write-ahead log sees to it
    however the process ends.

        with Store("sweep.sqlite", job="sweep", data=data.mnist1d()) as store:
            if store.result({"depth": 20, "seed": 0}) is None:
                store.add([({"depth": 20, "seed": 0}, {"test_error": 31.4})])

    Args:
        path: the file, made where it is missing.
        job: what fills it; a file holds one job alone.
        data: what the runs learn; a file holds runs on one data set alone, told by its content.

    Raises:
        CheckpointError: where the file is another's, of another job, data set or format, or cannot be opened.
    """

    def __init__(self, path: str | Path, *, job: str, data: Dataset) -> None:
        super().__init__(
            path, job=job, about={f"data set's {key}": value for key, value in describe_data(data).items()}
        )
