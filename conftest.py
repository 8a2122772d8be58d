"""The blocks of the documents are tests."""

from documents import documents

pytest_collect_file = documents().pytest()
