"""Imported once by the process from which the zoo's workers are forked."""

import timm  # noqa: F401
import torch  # noqa: F401
import transformers

import unbraid  # noqa: F401

transformers.logging.set_verbosity_error()
