"""Which cases of a test `make test` runs, and which are left to `make test-slow`."""

import pytest


def slow(*case, **more):
    """A case of a parametrised test that takes long, beside others of its kind that do not."""
    return pytest.param(*case, marks=pytest.mark.slow, **more)


def quick(cases, *names):
    """The cases of these names in every run, the rest in the slow one. A case is its name, or begins with it."""
    chosen = [(case if isinstance(case, tuple) else (case,)) for case in cases]
    assert set(names) <= {case[0] for case in chosen}
    return [pytest.param(*case, marks=[] if case[0] in names else pytest.mark.slow) for case in chosen]
