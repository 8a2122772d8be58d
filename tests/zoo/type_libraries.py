"""Imported once by the process from which the workers are forked: one type is traced, so that all is imported."""

import rich.progress  # noqa: F401
import torch

from oracles.ledger import read  # noqa: F401
from zoo.measured_type import measure
from zoo.model_types import make

torch.set_num_threads(1)  # a thread that waits for work would be lost in a fork
measure("bert", make)
