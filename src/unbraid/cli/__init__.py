"""unbraid.cli: the command `unbraid`, one file a verb.

`main` runs a verb: results on stdout, progress and errors on stderr, exit status 2 with one line for bad input.
"""

from unbraid.cli._main import main

__all__ = ["main"]
