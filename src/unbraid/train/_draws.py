"""The random numbers of one run, apart from everyone else's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from unbraid.ranks import world

__all__ = ["Draws"]


class Draws:
    """Two streams of random numbers, made from one seed: the order of the examples, and what layers draw.

    Dropout and stochastic depth draw from torch's global generator. Inside `lent()` that generator holds
    this run's stream; on leaving, it has its former state back. So a run neither sees nor changes what
    others draw. Of several ranks each draws for its own examples, from a stream of its own.

    Attributes:
        shuffle: the generator of the order of examples.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.shuffle = torch.Generator().manual_seed(seed)
        # Drawn, not `seed` itself: two generators of one seed would give the same numbers.
        layers = int(torch.randint(2**31, (), generator=self.shuffle, device="cpu"))
        self._device = device
        self._layers = {"cpu": torch.Generator().manual_seed(layers).get_state()}
        if device.type == "cuda":
            self._layers["cuda"] = torch.Generator(device).manual_seed(layers).get_state()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Torch's global generators carry on this run's stream inside, and their own after."""
        cuda = self._device.type == "cuda"
        with torch.random.fork_rng(devices=[self._device] if cuda else []):
            torch.set_rng_state(self._layers["cpu"])
            if cuda:
                torch.cuda.set_rng_state(self._layers["cuda"], self._device)
            if world().size > 1:
                # What is kept moves on alike on all ranks, so that the run can go on with another number of them.
                seed = int(torch.randint(2**62, (), device="cpu"))
                self._layers["cpu"] = torch.get_rng_state()
                torch.default_generator.manual_seed(seed + world().rank)
                if cuda:
                    torch.cuda.manual_seed(seed + world().rank)
                yield
                return
            yield
            self._layers["cpu"] = torch.get_rng_state()
            if cuda:
                self._layers["cuda"] = torch.cuda.get_rng_state(self._device)

    def state(self) -> dict[str, Tensor]:
        """The state of each generator, as bytes, for a checkpoint."""
        return {"shuffle": self.shuffle.get_state(), **self._layers}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Carry on from `state()`. A stream of a device that the state lacks keeps its seed."""
        self.shuffle.set_state(state["shuffle"])
        self._layers.update({key: state[key] for key in self._layers if key in state})
