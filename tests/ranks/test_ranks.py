"""The same work by 1, 2 and 4 processes: one program does it all, and these tests look at what each rank found."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unbraid import RankError, ranks
from unbraid.ranks import Share, World, in_order
from waiting import HANGS

KINDS = ("highway", "mHC", "DenseNet", "reversible")
ANALYSES = (
    *("lesion zero", "lesion mean", "lesion resample", "lesion of an iterator", "lesion of one batch"),
    *(f"{what}, {kind}" for kind in KINDS for what in ("lesion of skips", "mean spectrum")),
    *("reorderings", "subsets", "signal", "mean spectrum", "spectrum at a block", "rank", "diagnosis", "alone"),
)
WORLDS = [(size, rank) for size in (2, 4) for rank in range(size)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By (ranks, rank)."""
    folder = tmp_path_factory.mktemp("ranks")
    program = [sys.executable, str(Path(__file__).with_name("_workers.py")), str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    read = {(n, r): json.loads((folder / f"{n}" / f"{r}.json").read_text()) for n, r in [(1, 0), *WORLDS]}
    return read | {"folder": folder}


def distance(a, b):
    """The largest difference of two results of one form, relative to the largest number of each list of numbers."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((distance(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and a and isinstance(a[0], list | dict):
        assert len(a) == len(b)
        return max(distance(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) or (isinstance(a, list) and not any(isinstance(x, str) for x in a)):
        one, other = (torch.tensor(x, dtype=torch.float64).nan_to_num(nan=7.5) for x in (a, b))
        assert one.shape == other.shape
        return float((one - other).abs().max() / one.abs().max().clamp_min(1e-300)) if one.numel() else 0.0
    assert a == b
    return 0.0


@pytest.mark.parametrize("what", ANALYSES)
def test_analyses_are_those_of_one_process_on_every_rank(found, what):
    """float64: 7 batches of unequal sizes, so that on 4 ranks the last round has 3, and some ranks share one."""
    one = found[1, 0]["analyses"][what]
    for world in WORLDS:
        bound = 1e-14 if "spectrum" in what or what == "signal" else 1e-12
        assert distance(one, found[world]["analyses"][what]) <= bound


def test_every_example_counts_once(found):
    """Of 100 examples: the identity that a lost or repeated share would break."""
    for world in [(1, 0), *WORLDS]:
        for what in ("lesion zero", "signal", "mean spectrum"):
            assert found[world]["analyses"][what]["examples"] == 100


def test_a_share_that_is_dropped_on_purpose_is_missed(found):
    for size, rank in WORLDS:
        said = found[size, rank]["errors"]["lost share"]
        wanted = f"RankError: ranks: the answers do not cover what was shared out: a share of items [{size - 1}] is"
        assert said.startswith(wanted)


@pytest.mark.parametrize(("what", "bound"), [("sgd", 1e-4), ("adamw", 1e-4), ("batch norm", 1e-3)])
def test_training_agrees_with_one_process(found, what, bound):
    """float32, 14 steps of shares of 13 and 12 examples; batch norm in its running statistics too."""
    one = found[1, 0]["training"][what]
    for world in WORLDS:
        other = found[world]["training"][what]
        assert distance(one["weights"], other["weights"]) < bound
        assert distance(one["history"], other["history"]) < bound
        assert one["modules"] == other["modules"]  # the network is handed back as it came


def test_the_comparison_sees_shares_that_are_weighted_alike(found):
    one = found[1, 0]["training"]["sgd"]["weights"]
    for world in WORLDS:
        if world[0] == 4:  # two ranks have 25 examples of 50 each
            assert distance(one, found[world]["training"]["averaged by rank"]) > 1e-3


def test_all_ranks_hold_one_network_also_where_it_draws(found):
    for size, rank in WORLDS:
        for what in ("sgd", "batch norm", "dropout"):
            ours, first = (found[size, r]["training"][what]["weights"] for r in (rank, 0))
            assert ours == first


def test_divergence_is_seen_at_one_step_by_all(found):
    steps = {json.dumps(found[world]["training"]["diverged"]) for world in [(1, 0), *WORLDS]}
    assert len(steps) == 1
    assert steps != {"null"}


def test_a_run_of_four_ranks_goes_on_with_two(found):
    whole, broken = found[1, 0]["resumed"], found[2, 0]["resumed"]
    assert whole["epochs"] == broken["epochs"] == 4
    assert distance(whole["weights"], broken["weights"]) < 1e-4


def test_one_rank_writes(found):
    for size in (2, 4):
        lines = (found["folder"] / f"{size}" / "log.jsonl").read_text().splitlines()
        assert len(lines) == 2  # a line an epoch, not one a rank


@pytest.mark.parametrize(("size", "rank"), WORLDS)
def test_errors_reach_every_rank_and_none_waits(found, size, rank):
    said = found[size, rank]["errors"]
    last = size - 1
    assert "batch 2 is a tensor [16, 12]" in said["bad batch"]
    assert said["bad batch"].startswith("DataError" if rank == 2 % size else f"RankError: rank {2 % size}: DataError")
    assert said["no batch"].startswith("DataError: batches: there was none")
    assert said["other data"].startswith("DataError: ranks: each must be given all batches, the same in the same order")
    assert "is not that of rank 0" in said["fewer batches"]
    for what in ("other model", "other sets", "other network"):
        assert said[what].startswith("ValueError: ranks: all share the work of one call")
        assert "is not what rank 0 was given: rank 1." in said[what]
    failed = "MemoryError: no room on the last rank"
    assert said["one rank fails"] == (failed if rank == last else f"RankError: rank {last}: {failed}")
    assert "there is a run of 2 epochs here already" in said["run is there"]
    assert "cannot be written: Not a directory" in said["no folder"]
    assert said["too many ranks"] == (
        f"ValueError: fit: {size} ranks share out each batch, and the smallest of 101 examples in batches of 50 holds "
        "1. Choose another batch size, or fewer ranks."
    )
    assert said["many networks"].startswith(f"ValueError: train_many: {size} ranks are connected")


def test_the_command_prints_on_rank_0_what_one_process_prints(found):
    one = found[1, 0]["command"]
    for size, rank in WORLDS:
        for what, (status, stdout, stderr) in found[size, rank]["command"].items():
            assert status == one[what][0] == (2 if what == "bad" else 0)
            if rank:
                assert (stdout, stderr) == ("", "")
            elif what == "bad":
                assert 'nothing" is no model' in stderr
                assert stderr.count("\n") == 1
            else:
                assert distance(plain(stdout), plain(one[what][1])) < 1e-4
        assert (found["folder"] / f"{size}" / "lesion.svg").is_file()


def test_a_sweep_that_is_finished_is_not_repeated(found):
    for size in (1, 2, 4):
        command = found[size, 0]["command"]
        assert command["sweep"][1] == command["sweep again"][1]  # the seconds it took among it


def plain(text):
    """The printed result without what differs by nature: times, and the name of the folder."""
    return without(json.loads(text))


def without(value):
    if isinstance(value, dict):
        names = ("seconds", "folder", "model", "figure")
        return {key: without(one) for key, one in value.items() if key not in names}
    return [without(one) for one in value] if isinstance(value, list) else value


def test_work_is_shared_out_once():
    """Items and shares for any number of ranks: each share of each item once, and none is larger by more than one."""
    for size in range(1, 9):
        for items in range(1, size + 1):
            tasks = [World(0, size).task(rank, items) for rank in range(size)]
            for item in range(items):
                shares = [share for number, share in tasks if number == item]
                assert sorted(share.index for share in shares) == list(range(shares[0].of))
                work = [list(share.among(range(11))) for share in shares]
                assert sorted(n for some in work for n in some) == list(range(11))
            counts = [sum(number == item for number, _ in tasks) for item in range(items)]
            assert max(counts) - min(counts) <= 1


def test_one_process_loops_plainly():
    rows = in_order([1.0, 2.0], lambda item, share: {"x": torch.tensor(item * share.of)})
    assert [float(row["x"]) for row in rows] == [1.0, 2.0]
    assert ranks.world() == World(0, 1)
    assert ranks.world().first
    assert Share(1, 3).among([0, 1, 2, 3, 4]) == [1, 4]
    with ranks.alone():
        assert ranks.from_first(lambda: math.pi) == math.pi
    with pytest.raises(ZeroDivisionError):
        ranks.together(lambda: 1 // 0)
    assert isinstance(RankError("x", rank=1, kind="ValueError", bad_input=True), Exception)
