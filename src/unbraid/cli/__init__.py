"""unbraid.cli: the command `unbraid`, one file per verb.

`main` runs a verb: results on stdout, progress and errors on stderr, exit status 2 with one line for bad input.
"""

from collections.abc import Sequence

from unbraid.cli._interrupt import Interruptible, say_interrupted

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `unbraid` with the given arguments, by default the process's own.

    Returns:
        The exit status: 0; 2 for bad input, with one line on stderr; 130 after Ctrl-C; 1 for a fault of unbraid's own.
        With --debug anywhere among the arguments, errors keep their traceback. Started by torchrun, rank 0 speaks for
        all.
    """
    try:
        with Interruptible(process=arguments is None):
            from unbraid.cli._main import run  # from here on Ctrl-C ends in one line, also while this is imported

            return run(arguments)
    except KeyboardInterrupt:  # before a verb, or after it
        return say_interrupted()
