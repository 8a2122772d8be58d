"""Networks of one architecture side by side: each parameter is one tensor whose rows are theirs.

Torch's optimisers are shared: SGD and AdamW treat each number by itself, so that one step over the stack is a step of
each network. Members of one recipe stand together, and the optimiser of a recipe works on a view of their rows.
Gradients are made contiguous first: torch 2.13's fused optimisers on the CPU ignore strides and update the wrong
numbers. A network that diverged is handed back as it was at its step, and the stack is made anew at the end of the
epoch.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from unbraid.train._recipe import Recipe
from unbraid.train._same_architecture import Constants

__all__ = ["Member", "Stack"]

_DRAWS = (
    "these networks draw random numbers as they train (dropout, stochastic depth), and side by side they would draw "
    "others than alone. Train each with train.fit."
)
_STEPS = "step"  # of AdamW: one scalar for all members, who are all at the same step
_FUSED = ("cpu", "cuda")  # where torch updates weights in one pass over memory


@dataclass(frozen=True, eq=False)
class Member:
    """A network that is trained in a stack.

    Attributes:
        network: holds the weights before and after; in between the stack does.
        recipe: how it is trained.
        slots: the optimiser's tensors by the parameter's name, such as {"stem.weight": {"momentum_buffer": ...}};
            none before the first step.
    """

    network: nn.Module
    recipe: Recipe
    slots: dict[str, dict[str, Tensor]]


@final
class Stack:
    """W_n for n = 1 … N as one tensor W [N, ...]: one product of matrices in a batch stands for N products.

    Neighbours of equal recipe share an optimiser, because SGD and AdamW treat each number by itself; it is handed
    views of their rows.

    Args:
        members: the networks, of one architecture, on one device.
        constants: the floats in which they differ: one for each member, by place.
    """

    def __init__(self, members: Sequence[Member], constants: Constants) -> None:
        self.members = list(members)
        networks = [member.network for member in self.members]
        parameters, buffers = stack_module_state(networks)
        self.parameters = {name: tensor.detach() for name, tensor in parameters.items()}
        like = next(iter(self.parameters.values()))
        numbers = {
            name: torch.tensor(values, device=like.device, dtype=like.dtype) for name, values in constants.items()
        }
        self._buffers = buffers
        self._state = self.parameters | self._buffers | numbers
        self._skeleton = _skeleton(networks[0], constants)
        self._learned = [name for name, weight in networks[0].named_parameters() if weight.requires_grad]
        for name in self._learned:
            self.parameters[name].requires_grad_()
        self._bands = [self._band(places) for places in _runs(self.members)]

    def train(self, mode: bool) -> None:
        """Set all networks to training or to testing."""
        self._skeleton.train(mode)

    def outputs(self, inputs: Shaped[Tensor, "..."], *, shared: bool) -> Float[Tensor, "networks batch classes"]:
        """The scores of each network.

        Args:
            inputs: [batch, *features] if all see the same, else [networks, batch, *features].
            shared: whether all see the same.
        """
        return self._run(self._state, inputs, shared=shared)

    @torch.no_grad()
    def check(self, inputs: Shaped[Tensor, "batch *features"]) -> None:
        """Try the networks in training mode, on copies of their running statistics.

        Raises:
            ValueError: where they draw random numbers, or torch cannot run them side by side.
        """
        self.train(True)
        copies = {name: tensor.clone() for name, tensor in self._buffers.items()}
        try:
            self._run(self._state | copies, inputs, shared=True)
        except (RuntimeError, TypeError) as error:
            reason = _DRAWS if "random" in str(error) else f"torch cannot run these networks side by side: {error}"
            raise ValueError(f"train_many: {reason}") from error

    def _run(self, state: dict[str, Tensor], inputs: Tensor, *, shared: bool) -> Tensor:
        def one(state: dict[str, Tensor], x: Tensor) -> Tensor:
            scores: Tensor = functional_call(self._skeleton, state, (x,))
            return scores

        together: Tensor = vmap(one, in_dims=(0, None if shared else 0), randomness="error")(state, inputs)
        return together

    def set_rates(self, epoch: int) -> None:
        """Give each member its learning rate of an epoch, counted from 0."""
        for places, optimizer in self._bands:
            for group in optimizer.param_groups:
                group["lr"] = self.members[places.start].recipe.rate(epoch)

    def step(self, losses: Float[Tensor, " networks"]) -> None:
        """One step of every optimiser. No network's loss depends on another's weights, so their sum serves all."""
        learned = [self.parameters[name] for name in self._learned]
        gradients = torch.autograd.grad(losses.sum(), learned, allow_unused=True)
        for places, optimizer in self._bands:
            for row, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
                # Contiguous: fused kernels on the CPU (torch 2.13) read memory in order, whatever the strides say.
                row.grad = None if gradient is None else gradient[places].contiguous()
            optimizer.step()

    @torch.no_grad()
    def hand_back(self, place: int) -> Member:
        """Copy a row's weights and running statistics into its network, and its optimiser's state into slots."""
        member = self.members[place]
        for name, tensor in (*member.network.named_parameters(), *member.network.named_buffers()):
            tensor.copy_(self._state[name][place])
        return Member(member.network, member.recipe, self._slots(place))

    @torch.no_grad()
    def finite(self) -> list[bool]:
        """Whether every parameter and buffer of each member is."""
        tensors = [tensor for tensor in (self.parameters | self._buffers).values() if tensor.is_floating_point()]
        rows = torch.stack([tensor.reshape(len(self.members), -1).isfinite().all(1) for tensor in tensors])
        return [bool(row) for row in rows.all(0).tolist()]

    def _band(self, places: slice) -> tuple[slice, torch.optim.Optimizer]:
        members = self.members[places]
        rows = nn.ParameterList([self.parameters[name].detach()[places] for name in self._learned])
        optimizer = members[0].recipe.optimizer_of(rows)
        for group in optimizer.param_groups:
            group["fused"] = next(iter(rows)).device.type in _FUSED
        for name, row in zip(self._learned, rows, strict=True):
            kept = [member.slots.get(name, {}) for member in members]
            for slot, first in kept[0].items():
                optimizer.state[row][slot] = first if slot == _STEPS else torch.stack([slots[slot] for slots in kept])
        return places, optimizer

    def _slots(self, place: int) -> dict[str, dict[str, Tensor]]:
        places, optimizer = next(band for band in self._bands if band[0].start <= place < band[0].stop)
        rows = dict(zip(self._learned, optimizer.param_groups[0]["params"], strict=True))

        def slots(row: Tensor) -> dict[str, Tensor]:
            return {
                slot: (value if slot == _STEPS else value[place - places.start]).clone()
                for slot, value in optimizer.state.get(row, {}).items()
                if isinstance(value, Tensor)  # SGD without momentum holds None
            }

        return {name: slots(row) for name, row in rows.items()}


def _runs(members: list[Member]) -> list[slice]:
    """The places of neighbours whose recipes are equal."""
    slices: list[slice] = []
    for _, same in groupby(range(len(members)), key=lambda place: members[place].recipe):
        places = list(same)
        slices.append(slice(places[0], places[-1] + 1))
    return slices


def _skeleton(network: nn.Module, constants: Constants) -> nn.Module:
    """The network without weights, its differing constants made buffers, so that they can be handed in like weights."""
    skeleton = copy.deepcopy(network).to("meta")
    for place in constants:
        path, _, attribute = place.rpartition(".")
        module = skeleton.get_submodule(path)
        delattr(module, attribute)
        module.register_buffer(attribute, torch.empty((), device="meta"))
    return skeleton
