"""Activation checkpointing: nothing changes but the memory. Oracle: the same network without."""

import copy

import pytest
import torch
from torch import Tensor

from networks import normal
from unbraid import data, nn, trace, train
from unbraid.nn import _checkpointing

NETWORKS = {
    "no norm": lambda: nn.mlp(depth=11, width=12, norm=None, generator=_seed()),
    "batch norm": lambda: nn.mlp(depth=10, width=12, norm="batch", order="norm act linear +", generator=_seed()),
    "stochastic depth": lambda: nn.mlp(depth=9, width=12, stochastic_depth=0.5, generator=_seed()),
    "dropout on the skip": lambda: nn.conv2d(inputs=1, layers=20, width=4, shortcut="dropout", generator=_seed()),
    "plain": lambda: nn.mlp(depth=7, width=12, norm="batch", order="norm act linear +", generator=_seed()).plain(),
    "one block": lambda: nn.mlp(depth=1, width=12, generator=_seed()),
}


def _seed():
    return torch.Generator().manual_seed(0)


def _step(network, x, *, checkpointing):
    """Gradients, and what the buffers are after a step forward and back."""
    network = copy.deepcopy(network).train()
    network.checkpointing = checkpointing
    with torch.random.fork_rng():
        torch.manual_seed(7)
        y = network(x)
        y.square().sum().backward()
        drawn = torch.rand(3)
    return y.detach(), {n: p.grad for n, p in network.named_parameters()}, dict(network.named_buffers()), drawn


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_and_running_statistics_are_the_same_bits(kind):
    network = NETWORKS[kind]()
    x = normal(6, 1, 8, 8).float() if kind.startswith("dropout") else normal(6, 40).float()
    plain, other = (_step(network, x, checkpointing=on) for on in (False, True))
    assert torch.equal(plain[0], other[0])
    assert torch.equal(plain[3], other[3])  # as many random numbers were drawn
    for a, b in zip(plain[1:3], other[1:3], strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    if kind == "batch norm":
        assert all(int(v) == 1 for n, v in other[2].items() if n.endswith("num_batches_tracked"))


def test_the_check_sees_statistics_that_move_twice(monkeypatch):
    """Run a segment again on its own buffers, as torch does by itself: the running means are others."""
    monkeypatch.setattr(_checkpointing, "functional_call", lambda segment, _, given: segment(*given))
    network, x = NETWORKS["batch norm"](), normal(6, 40).float()
    plain, other = (_step(network, x, checkpointing=on)[2] for on in (False, True))
    assert not all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize(("blocks", "bound"), [(16, 9), (100, 21)])
def test_about_two_roots_of_activations_are_alive(blocks, bound):
    """Count tensors that autograd has packed and not let go of: at most √K inputs, and √K blocks of one segment."""
    alive, most = [0], [0]

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self) -> None:
            alive[0] -= 1

    def most_of(checkpointing):
        network = nn.mlp(depth=blocks, width=8, norm=None, generator=_seed())
        network.checkpointing, most[0] = checkpointing, 0
        own = {p.data_ptr() for p in network.parameters()}

        def pack(tensor):
            return tensor if tensor.untyped_storage().data_ptr() in own else Kept(tensor)

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda k: k.tensor if isinstance(k, Kept) else k):
            loss = network(normal(4, 40).float()).sum()
        loss.backward()
        return most[0]

    # A block of "act linear +" keeps its activation twice: for the ReLU's gradient and for the weight's.
    assert most_of(checkpointing=False) >= 2 * blocks
    assert most_of(checkpointing=True) <= 2 * bound


def test_nothing_is_run_twice_without_gradients_and_a_trace_sees_the_plain_network():
    network = NETWORKS["no norm"]().eval()
    network.checkpointing = True
    x = normal(3, 40).float()
    assert len(trace(network, x).blocks) == 11
    with torch.no_grad():
        assert torch.equal(network(x), NETWORKS["no norm"]().eval()(x))


def test_a_run_is_the_same_and_leaves_the_network_as_it_was():
    examples, runs = _examples(), []
    for on in (False, True):
        network = NETWORKS["stochastic depth"]()
        runs.append(train.fit(network, examples, train.Recipe(epochs=2, batch_size=20), checkpointing=on, device="cpu"))
        assert not network.checkpointing
    for a, b in zip(*(run.network.state_dict().values() for run in runs), strict=True):
        assert torch.equal(a, b)
    assert [e.train_loss for e in runs[0].history] == [e.train_loss for e in runs[1].history]


def test_a_network_whose_blocks_are_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"blocks of a network of unbraid\.nn .* this one is a Linear"):
        train.fit(torch.nn.Linear(40, 10), _examples(), checkpointing=True, folder=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def _examples():
    generator = _seed()
    inputs, labels = torch.randn(80, 40, generator=generator), torch.randint(10, (80,), generator=generator)
    return data.Dataset(
        "noise", inputs[:60], labels[:60], inputs[60:], labels[60:], 10, torch.zeros(()), torch.ones(())
    )
