"""The command, interrupted at chosen moments of its life: real processes and real signals."""

import os
import signal
import subprocess
import sys
import time

from waiting import HANGS

UP = "import sys; from unbraid.cli import main; sys.stdout.write('up\\n'); sys.stdout.flush(); sys.exit(main())"


def start(arguments, folder):
    """The process, from the moment on at which the command takes over."""
    process = subprocess.Popen(
        [sys.executable, "-c", UP, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with interrupts ignored, and children inherit that: CI may be such a job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == "up\n"
    return process


def lifetime(arguments, folder):
    """How long an undisturbed one takes."""
    process, begin = start(arguments, folder), time.monotonic()
    said = process.communicate(timeout=HANGS)
    assert process.returncode == 0, said
    return time.monotonic() - begin


def interrupted(arguments, folder, after):
    """Exit status, stdout and stderr of one that was interrupted so many seconds after it had begun."""
    process = start(arguments, folder)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=HANGS)
    return process.returncode, out, said
