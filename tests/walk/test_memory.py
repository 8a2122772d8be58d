"""Memory that a sweep frees is taken again without new pages, and given back at the end."""

import resource
import subprocess
import sys
from os import environ

import pytest
import torch

from unbraid import lesion, nn, trace
from unbraid.walk import _memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")

# Tensors of 64 MiB, freed and taken 20 times: page faults within, and resident MiB within and afterwards.
PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from unbraid.walk import memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

def work():
    for _ in range(20):
        torch.ones(16 << 20)

work()
before, start = resident(), faults()
try:
    with memory_kept(when=sys.argv[1] == "kept"):
        work()
        within = resident() - before
        if sys.argv[2:]:
            raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
print(faults() - start, within, resident() - before)
"""
PAGES = (64 << 20) // resource.getpagesize()  # in one of the tensors


def ran(*arguments, **settings):
    quiet = {name: value for name, value in environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=quiet | settings, capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


@pytest.mark.parametrize("interrupted", [(), ("interrupted",)], ids=["to the end", "interrupted"])
def test_pages_are_taken_once_and_given_back(interrupted):
    faults, within, after = ran("kept", *interrupted)
    assert faults < 2 * PAGES
    assert within > 48
    assert after < 16


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [(["not"], {}), (["kept"], {"MALLOC_ARENA_MAX": "2"}), (["kept"], {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"})],
    ids=["not asked for", "settings of the user's", "tunables of the user's"],
)
def test_otherwise_the_c_library_is_left_alone(arguments, settings):
    """It then takes every page anew for each tensor: the same measure, which must see that."""
    faults, within, _ = ran(*arguments, **settings)
    assert faults > 10 * PAGES
    assert within < 16


def test_a_sweep_keeps_memory(monkeypatch):
    calls = []

    class Library:
        def mallopt(self, what, value):
            calls.append((what, value))

        def malloc_trim(self, pad):
            calls.append("given back")

    monkeypatch.setattr(_memory, "_glibc", Library)
    x = torch.randn(4, 40)
    lesion(trace(nn.mlp(depth=3).eval(), x), [(x, None)], lambda output, labels: output.square().mean())
    assert calls == [(-3, 2**31 - 1), (-1, 2**31 - 1), (-3, 32 << 20), (-1, 64 << 20), "given back"]
