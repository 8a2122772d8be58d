"""Many traces: two at once in threads, a thousand one after the other, and the same bits from the same seed."""

import ctypes
import gc
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import fx

from marks import slow
from networks import Chain, Residual, error, lively, mlp, normal
from unbraid import gradient_spectrum, trace, train, unravel
from unbraid.data import from_arrays
from unbraid.nn import mlp as network


def residual(depth, seed):
    return lively(Chain(*(Residual(mlp(4)) for _ in range(depth))), seed=seed)


def outcome(depth, seed):
    """A trace and what follows from it, as numbers."""
    x = normal(3, 4, seed=seed)
    form = trace(residual(depth, seed), x)
    spectrum = gradient_spectrum(form, x, target=0)
    return form.path_counts(), form(x), spectrum.gradients, unravel(form, x).total()


def test_two_traces_at_once_are_those_of_one_after_the_other():
    alone = [outcome(depth, seed=depth) for depth in (2, 3)]
    for _ in range(3):
        found, failed, begin = {}, [], threading.Barrier(2)

        def work(depth, found=found, failed=failed, begin=begin):
            try:
                begin.wait()
                found[depth] = outcome(depth, seed=depth)
            except BaseException as problem:
                failed.append(problem)

        threads = [threading.Thread(target=work, args=(depth,)) for depth in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        for depth, (counts, *numbers) in zip((2, 3), alone, strict=True):
            assert found[depth][0] == counts
            assert all(torch.equal(a, b) for a, b in zip(found[depth][1:], numbers, strict=True))


def test_the_same_seed_and_threads_give_the_same_bits():
    first, second = outcome(4, seed=9), outcome(4, seed=9)
    assert first[0] == second[0]
    assert all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))
    assert error(first[1], outcome(4, seed=10)[1]) > 1e-3, "another seed gives other numbers, or nothing was compared"


def test_training_with_one_seed_gives_the_same_bits():
    y = torch.arange(40) % 2
    data = from_arrays(normal(40, 3).float().numpy(), y.numpy())

    def weights():
        made = network(inputs=3, classes=2, width=4, depth=2, generator=torch.Generator().manual_seed(3))
        run = train.fit(made, data, train.Recipe(epochs=2, batch_size=8), seed=5, device="cpu")
        return run.network.state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _resident() -> float:
    """Memory of this process in MB, what the allocator could give back given back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _alive() -> dict[type, int]:
    """How many objects of ours, and graphs, there are."""
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    return {k: count for k, count in kinds.items() if k is fx.Graph or str(k.__module__).startswith("unbraid")}


def _traced(count):
    model, x = residual(2, seed=0), normal(3, 4)
    for _ in range(count):
        unravel(trace(model, x), x).total()


def test_traces_leave_no_object_behind():
    _traced(2)
    before = _alive()
    _traced(20)
    assert _alive() == before
    form = trace(residual(2, seed=0), normal(3, 4))
    assert _alive() != before, "a form that is kept would be seen"
    assert form.blocks


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize(("first", "then"), [slow(40, 40), slow(300, 1000)])
def test_traces_leave_memory_flat(first, then):
    """In a process of its own, as pytest keeps what torch logs. Of sizes torch keeps those of the last 256 exports."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from test_stress import _resident, _traced;"
        f"_traced({first}); before = _resident(); _traced({then}); print(before, _resident())"
    )
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    said = subprocess.run([sys.executable, "-c", code, *folders], check=True, capture_output=True, text=True).stdout
    before, after = map(float, said.split())
    assert after <= 1.05 * before


def test_memory_that_is_kept_would_be_seen():
    # Two tensors of 64 MiB: smaller ones may lie where something else was freed, and nothing grows.
    before, kept = _resident(), [torch.ones(2**24) for _ in range(2)]
    assert _resident() > before + 100
    assert len(kept) == 2
