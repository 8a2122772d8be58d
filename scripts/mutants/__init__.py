"""Mutants: small changes of the code, the tests that must notice them, and the page about those that live."""

from mutants._mutants import SUBJECTS, Mutant, Result, mutants
from mutants._page import page

__all__ = ["SUBJECTS", "Mutant", "Result", "mutants", "page"]
