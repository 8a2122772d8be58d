"""For programs that kill a command at random moments until it gets through; victims are forks, torch imported once."""

import os
import random
import signal
import sqlite3
import sys
import time

from unbraid.cli import main


def kept(path):
    """Number and content of each row of what the command keeps."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT number, asked, result, finished FROM runs ORDER BY number").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return []
    finally:
        connection.close()


def killed_at_random(arguments, file, seconds):
    """Kill and start again; after each kill, what had been kept must still be, untouched.

    Args:
        arguments: of the command, which keeps its work in the file.
        file: where.
        seconds: between which two numbers a victim lives.

    Returns:
        How many pieces were finished after each start.
    """
    draw, last, reached = random.Random(1), [], []
    patience = 1.0  # grows while nothing gets done, so that a slow or busy machine gets through too
    for _ in range(200):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(main(arguments))
        time.sleep(patience * draw.uniform(*seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        rows = kept(file)
        assert rows[: len(last)] == last, "a finished piece was lost or repeated"
        patience = 1.0 if len(rows) > len(last) else patience * 1.4
        last = rows
        reached.append(len(rows))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, status
            return reached
    sys.exit("it never got through")
