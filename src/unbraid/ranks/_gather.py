"""Messages between ranks: plain facts as JSON and tensors as safetensors, so that nothing is unpickled.

Torch's own exchange of objects between processes pickles them.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from unbraid.errors import RankError, UnbraidError

__all__ = ["Message", "Row", "attempted", "connected", "gather", "raise_first", "where"]

Row: TypeAlias = Mapping[str, Tensor]
_LENGTH = 8  # bytes that say how long the facts are


@dataclass(frozen=True, eq=False)
class Message:
    """What one rank tells all.

    Attributes:
        facts: what JSON can say.
        row: numbers.
        error: what went wrong on that rank: its class and text, and whether the input was at fault.
        raised: the same as it was raised; it stays on its rank.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    row: Row = field(default_factory=dict)
    error: tuple[str, str, bool] | None = None
    raised: Exception | None = None


def attempted(error: Exception) -> Message:
    """The message of a rank on which something went wrong."""
    at_fault = isinstance(error, UnbraidError | ValueError | OSError)
    return Message(error=(type(error).__name__, str(error), at_fault), raised=error)


def gather(message: Message) -> list[Message]:
    """The messages of all ranks, in their order. Every rank must call it."""
    sent = torch.frombuffer(bytearray(_packed(message)), dtype=torch.uint8).to(where())
    with connected():
        lengths = [torch.zeros(1, dtype=torch.int64, device=where()) for _ in range(dist.get_world_size())]
        dist.all_gather(lengths, torch.tensor([len(sent)], device=where()))
        longest = int(max(lengths))
        padded = torch.zeros(longest, dtype=torch.uint8, device=where())
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(received, padded)
    contents = zip(received, lengths, strict=True)
    messages = [_unpacked(content[: int(length)].cpu().numpy().tobytes()) for content, length in contents]
    rank = dist.get_rank()
    messages[rank] = replace(messages[rank], raised=message.raised)
    return messages


def raise_first(messages: list[Message]) -> None:
    """Raise the error of the lowest rank that has one, on every rank: none goes on alone, none waits.

    Raises:
        RankError: the error is another rank's; on that rank itself it is raised as it was.
    """
    for rank, message in enumerate(messages):
        if message.raised is not None:
            raise message.raised
        if message.error is not None:
            kind, text, at_fault = message.error
            raise RankError(f"rank {rank}: {kind}: {text}", rank=rank, kind=kind, bad_input=at_fault)


@contextmanager
def connected() -> Iterator[None]:
    """Inside, a connection that breaks because another rank died is told as such."""
    try:
        yield
    except RuntimeError as error:
        # Gloo raises a plain RuntimeError, NCCL torch's own.
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            reason = str(error).splitlines()[0]
            raise RankError(
                f"the connection to the other ranks is lost, most likely because one of them ended: {reason}",
                rank=None,
                kind=type(error).__name__,
                bad_input=False,
            ) from error
        raise


def where() -> torch.device:
    """Where messages must lie: NCCL sends from its own GPU only; the rest, and both together, from the CPU too."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _packed(message: Message) -> bytes:
    facts = json.dumps({"facts": message.facts, "error": message.error}).encode()
    row = {name: tensor.detach().cpu().contiguous() for name, tensor in message.row.items()}
    return len(facts).to_bytes(_LENGTH, "little") + facts + (save(row) if row else b"")


def _unpacked(data: bytes) -> Message:
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    said = json.loads(data[_LENGTH:end])
    row = load(data[end:]) if data[end:] else {}
    return Message(said["facts"], row, said["error"] and tuple(said["error"]))
