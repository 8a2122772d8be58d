"""The blocks of the documents are tests, and so are the notebooks of examples/."""

import os
from pathlib import Path

from documents import documents

pytest_collect_file = documents().pytest()

# The kernels of the notebooks are processes of their own; see tests/notebooks/sitecustomize.py.
_TESTS = Path(__file__).parent / "tests"
_PATHS = [str(_TESTS / "notebooks"), str(_TESTS), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))
