"""Memory that a sweep frees is taken again without new pages, and given back at the end where it is much."""

import subprocess
import sys
from os import environ
from pathlib import Path

import pytest
import torch

from marks import slow
from unbraid import lesion, nn, trace
from unbraid.sweep import _kept_memory as _memory

resource = pytest.importorskip("resource")
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = [
    pytest.mark.skipif(_memory._glibc() is None, reason="settings of glibc, which nobody has made"),
    pytest.mark.skipif(HUGE.exists() and "[always]" in HUGE.read_text(), reason="pages are of several sizes"),
]

# Tensors of 64 MiB, which glibc by itself never keeps, freed and taken 20 times: page faults, and resident MiB within
# and afterwards.
PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from unbraid.sweep._kept_memory import memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

def work():
    for _ in range(20):
        tensors = [torch.ones(16 << 20) for _ in range(int(sys.argv[2]))]
        del tensors

before = resident()
work()
start = faults()
try:
    with memory_kept(when=sys.argv[1] == "kept"):
        work()
        within = resident() - before
        if sys.argv[3:]:
            raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
print(faults() - start, within, resident() - before)
"""
PAGES = (64 << 20) // resource.getpagesize()  # of one tensor


def ran(kept, tensors, *interrupted, **settings):
    quiet = {name: value for name, value in environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, kept, str(tensors), *interrupted]
    done = subprocess.run(command, env=quiet | settings, capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


@pytest.mark.parametrize("interrupted", [(), slow(("interrupted",))], ids=["to the end", "interrupted"])
def test_pages_are_taken_once_and_much_is_given_back(interrupted):
    faults, within, after = ran("kept", 6, *interrupted)
    assert faults < 12 * PAGES
    assert within > 320
    assert after < 96  # 64 MiB are glibc's to keep


def test_little_stays():
    """Two tensors lie in two places, or in three where something small lies between: less than what is given back."""
    faults, within, after = ran("kept", 2)
    assert faults < 4 * PAGES
    assert 96 < within < 224
    assert after > within - 16


@pytest.mark.parametrize(
    ("kept", "settings"),
    [
        ("not", {}),
        slow("kept", {"MALLOC_ARENA_MAX": "2"}),
        slow("kept", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}),
    ],
    ids=["not asked for", "settings of the user's", "tunables of the user's"],
)
def test_otherwise_the_c_library_is_left_alone(kept, settings):
    """It then takes every page anew for each tensor: the same measure, which must see that."""
    faults, within, _ = ran(kept, 3, **settings)
    assert faults > 30 * PAGES
    assert within < 32


@pytest.mark.parametrize("most", [2**31 - 1, 32 << 20], ids=["glibc", "an older one"])
@pytest.mark.parametrize("free", [None, 257 << 20, 255 << 20], ids=["unknown", "much", "little"])
def test_a_sweep_keeps_memory(monkeypatch, most, free):
    calls = []

    class Library:
        def mallopt(self, what, value):
            calls.append((what, value))
            return int(what != -3 or value <= most)

        def malloc_trim(self, pad):
            calls.append(f"trimmed to {pad >> 20} MiB")

    library = Library()
    if free is not None:  # glibc before 2.33 has no such function
        library.mallinfo2 = lambda: _memory._Information(fordblks=free)
    monkeypatch.setattr(_memory, "_glibc", lambda: library)
    x = torch.randn(4, 40)
    lesion(trace(nn.mlp(depth=3).eval(), x), [(x, None)], lambda output, labels: output.square().mean())
    refused = [(-3, most)] if most < 2**31 - 1 else []
    trimmed = [] if free == 255 << 20 else ["trimmed to 64 MiB"]
    assert calls == [(-3, 2**31 - 1), *refused, (-1, 2**31 - 1), (-3, 32 << 20), (-1, 64 << 20), *trimmed]
