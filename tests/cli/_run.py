"""Run the command line inside this process, through the same `main` that the console script calls."""

import contextlib
import io
from dataclasses import dataclass

from unbraid.cli import main


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str


def invoke(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(arguments)
    return Result(status, out.getvalue(), err.getvalue())
