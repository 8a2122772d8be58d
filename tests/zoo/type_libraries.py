"""Imported once by the process from which the workers are forked: one type is traced, so that all is imported."""

import rich.progress  # noqa: F401
import torch

from oracles.ledger import read  # noqa: F401
from zoo.model_types import make
from zoo.type_result import measure

torch.set_num_threads(1)  # a thread that waits for work would be lost in a fork
measure("bert", make)
