"""Models that the command line names: from a file of Python, a library, a run, or the toy that every example has."""
