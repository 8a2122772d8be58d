"""A network whose weights are three times the memory allowed, taken apart in a process of its own.

Its peak of resident memory, above that of Python with all libraries loaded, is the kernel's (VmHWM). The numbers are
those of the same network in memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import unbraid
from saved import _larger
from waiting import HANGS

DEPTH, WIDTH = 18, 2048  # 302 MB; one block has 17 MB
WEIGHTS = DEPTH * WIDTH * WIDTH * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shard a block, as large models come."""
    place, index = tmp_path_factory.mktemp("large"), {}
    with unbraid.empty_weights():
        empty = _larger.network(DEPTH, WIDTH)
    generator = torch.Generator().manual_seed(0)
    for number, (name, parameter) in enumerate(empty.named_parameters()):
        scale = parameter.shape[-1] ** -0.5
        index[name] = f"model-{number:05}.safetensors"
        save_file({name: scale * torch.randn(parameter.shape, generator=generator)}, place / index[name])
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return place


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_a_third_of_the_weights_is_enough(folder, tmp_path):
    script = Path(_larger.__file__)
    # The allocator gives back what is freed: otherwise the peak depends on what it keeps.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    arguments = [str(folder), str(tmp_path / "found.pt"), str(DEPTH), str(WIDTH)]
    subprocess.run([sys.executable, str(script), *arguments], env=env, check=True, timeout=HANGS)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert found.pop("peak") < WEIGHTS / 3

    network = _larger.network(DEPTH, WIDTH)
    network.load_state_dict({n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = _larger.numbers(unbraid.trace(network, _larger.CALL[:2]))
    finally:
        torch.set_num_threads(threads)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert torch.equal(found[name], values), name
