import hashlib
import json
import pickle
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from train._small import SHORT, by_hand, examples, network, same_bits
from unbraid import train
from unbraid.errors import CheckpointError
from unbraid.train import Recipe

FILES = {"config.json", "weights.safetensors", "optimizer.safetensors", "metrics.jsonl", "SHA256SUMS"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "run"
    train.fit(network(), examples(), SHORT, folder=folder, seed=2)
    return folder


@pytest.fixture
def copy(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


class StopError(Exception):
    pass


def stopped_after(epochs, *arguments, **options):
    def stop(epoch):
        if epoch.epoch == epochs:
            raise StopError

    with pytest.raises(StopError):
        train.fit(*arguments, **options, on_epoch=stop)


def resign(folder):
    """Make the checksums right again after tampering, as an attacker would."""
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in sorted(FILES - {"SHA256SUMS"})]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_the_folder_shows_its_files_and_nothing_else(kept):
    assert {path.name for path in kept.iterdir()} == FILES
    assert [json.loads(line)["epoch"] for line in (kept / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
    ]
    config = json.loads((kept / "config.json").read_text())
    assert config["network"] == network().config
    assert config["recipe"]["epochs"] == 4
    assert (config["seed"], config["data"]["name"], config["data"]["train"]) == (2, "thirds", 330)
    assert config["versions"]["torch"] == str(torch.__version__)


def test_the_checksums_are_those_of_sha256sum(kept):
    for line in (kept / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((kept / name).read_bytes()).hexdigest() == digest


def test_what_is_read_is_what_was_trained(kept):
    run = train.fit(network(), examples(), SHORT, seed=2)
    before = torch.get_rng_state()
    back = train.load(kept)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(back.network, run.network)
    assert (back.recipe, back.seed, back.data, back.diverged) == (SHORT, 2, "thirds", None)
    assert back.test_error == run.test_error
    assert not back.network.training


def test_a_plain_twin_comes_back_plain(tmp_path):
    plain = network(stochastic_depth=0.0).plain()
    train.fit(plain, examples(), SHORT, folder=tmp_path / "run")
    back = train.load(tmp_path / "run").network
    assert type(back) is type(plain)
    assert same_bits(back, plain)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("make", [network, by_hand])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_resumed_is_unbroken(tmp_path, make, optimizer, momentum):
    recipe = Recipe(epochs=4, batch_size=50, lr=0.01, optimizer=optimizer, momentum=momentum, schedule="cosine")
    stopped_after(2, make(), examples(), recipe, folder=tmp_path)
    # Another first seed: all that counts must come from the folder.
    resumed = train.fit(make(9), examples(), recipe, folder=tmp_path, resume=True)
    unbroken = train.fit(make(), examples(), recipe)
    assert same_bits(resumed.network, unbroken.network)
    assert [e.train_loss for e in resumed.history] == [e.train_loss for e in unbroken.history]


def test_resuming_without_the_generators_would_be_seen(tmp_path):
    """The comparison above can fail: the same weights and momentum, but generators set back to the seed."""
    stopped_after(2, network(), examples(), SHORT, folder=tmp_path)
    file = tmp_path / "optimizer.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors["generator/shuffle"] = torch.Generator().manual_seed(0).get_state()
    save_file(tensors, file)
    resign(tmp_path)
    resumed = train.fit(network(), examples(), SHORT, folder=tmp_path, resume=True)
    assert not same_bits(resumed.network, train.fit(network(), examples(), SHORT).network)


def test_resuming_what_is_finished_or_not_begun(kept, copy, tmp_path):
    seen = []
    done = train.fit(network(9), examples(), SHORT, seed=2, folder=copy, resume=True, on_epoch=seen.append)
    assert same_bits(done.network, train.load(kept).network)
    assert seen == []
    fresh = train.fit(network(), examples(), SHORT, seed=2, folder=tmp_path / "new", resume=True)
    assert same_bits(fresh.network, done.network)


def test_a_run_is_never_overwritten_by_accident(copy):
    with pytest.raises(CheckpointError, match=r"there is a run of 4 epochs here already\. resume=True"):
        train.fit(network(), examples(), SHORT, seed=2, folder=copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, r"its seed differs:\n  in the folder 2\n  asked for     3"),
        (
            {"recipe": Recipe(epochs=9, batch_size=50)},
            r"recipe differs:\n  in the folder \{'epochs': 4\}\n  asked for     \{'epochs': 9\}",
        ),
        (
            {"network": network(width=20)},
            r"network differs:\n  in the folder \{'width': 16\}\n  .*\{'width': 20\}",
        ),
        ({"data": examples(test=90)}, r"data differs:\n  in the folder .*'test': 100.*\n.*'test': 90"),
    ],
)
def test_only_the_same_run_is_resumed(copy, changes, message):
    asked = {"network": network(), "data": examples(), "recipe": SHORT, "seed": 2} | changes
    with pytest.raises(CheckpointError, match=message):
        train.fit(**asked, folder=copy, resume=True)


def test_a_network_built_by_hand_needs_its_network(tmp_path):
    made = by_hand()
    train.fit(made, examples(), SHORT, folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"built by hand.*train\.load\(folder, network=\.\.\.\)"):
        train.load(tmp_path)
    assert same_bits(train.load(tmp_path, network=by_hand(5)).network, made)
    wrong = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Dropout(0.3), nn.Linear(20, 3))
    with pytest.raises(
        CheckpointError, match=r"0\.bias: \[16\] in the file, \[20\] in the network\n  0\.weight: \[16, 12\]"
    ):
        train.load(tmp_path, network=wrong)
    with pytest.raises(CheckpointError, match=r"0\.bias: \[16\] in the file, absent in the network(?s:.*)and 2 more"):
        train.load(tmp_path, network=nn.Bilinear(2, 2, 3))


def test_tied_weights_are_kept(tmp_path):
    def tied():
        shared = nn.Linear(12, 12)
        nn.init.eye_(shared.weight)
        nn.init.zeros_(shared.bias)
        head = nn.Linear(12, 3)
        nn.init.ones_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(shared, nn.ReLU(), shared, head)

    stopped_after(2, tied(), examples(), SHORT, folder=tmp_path)
    resumed = train.fit(tied(), examples(), SHORT, folder=tmp_path, resume=True)
    assert same_bits(resumed.network, train.fit(tied(), examples(), SHORT).network)
    assert resumed.network[0].weight is resumed.network[2].weight


def test_a_diverged_run_keeps_its_last_good_epoch(tmp_path):
    class Bomb(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 3)
            self.taken = 0

        def forward(self, x):
            self.taken += self.training
            return self.linear(x) * (float("inf") if self.taken == 17 and self.training else 1)

    run = train.fit(Bomb(), examples(), SHORT, folder=tmp_path)
    back = train.load(tmp_path, network=Bomb())
    assert (run.diverged, back.diverged, len(back.history)) == (16, 16, 2)
    assert all(tensor.isfinite().all() for tensor in back.network.state_dict().values())
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[-1] == '{"diverged": 16}'
    again = train.fit(Bomb(), examples(), SHORT, folder=tmp_path, resume=True)
    assert (again.diverged, len(again.history)) == (16, 2)


@pytest.mark.parametrize("name", sorted(FILES - {"SHA256SUMS"}))
def test_a_file_missing_cut_short_or_flipped(copy, name):
    content = (copy / name).read_bytes()
    for damage in (content[:-1], content[: len(content) // 2], b""):
        (copy / name).write_bytes(damage)
        with pytest.raises(CheckpointError, match=rf"{name} is damaged.*: {len(damage):,} bytes with SHA-256"):
            train.load(copy)
    for place in range(0, len(content), max(1, len(content) // 50)):
        (copy / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
            train.load(copy)
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=rf"incomplete: {name} is missing"):
        train.load(copy)


def test_checksums_missing_or_flipped(copy):
    sums = copy / "SHA256SUMS"
    content = sums.read_bytes()
    for place in range(0, len(content), 7):
        sums.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"is damaged|is not listed in SHA256SUMS"):
            train.load(copy)
    sums.unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint here: SHA256SUMS is missing\. A checkpoint holds config"):
        train.load(copy)


def test_no_such_folder_or_a_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone: there is no such folder"):
        train.load(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file: this is a file, and a checkpoint is a folder"):
        train.load(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"file cannot be written: (Not a directory|File exists)"):
        train.fit(network(), examples(), SHORT, folder=tmp_path / "file")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


TAMPERED = [
    ("config.json", b"[]", r"config\.json holds no JSON object"),
    ("config.json", b"{", r"not a checkpoint that unbraid wrote"),
    ("config.json", b"\xff\xfe", r"not a checkpoint that unbraid wrote"),
    ("config.json", b"[" * 100_000, r"not a checkpoint that unbraid wrote"),
    ("config.json", b"{}", r"this unbraid reads checkpoints of format 1; this one is None"),
    ("config.json", b'{"format": 1}', r"not a checkpoint that unbraid wrote: 'recipe'"),
    ("metrics.jsonl", b'{"epoch": 1}\n', r"not a checkpoint that unbraid wrote"),
    ("metrics.jsonl", b"7\n", r"not a checkpoint that unbraid wrote"),
    ("weights.safetensors", b"\xff" * 64, r"not a checkpoint that unbraid wrote"),
]


@pytest.mark.parametrize(("name", "content", "message"), TAMPERED)
def test_well_signed_nonsense(copy, name, content, message):
    (copy / name).write_bytes(content)
    resign(copy)
    with pytest.raises(CheckpointError, match=message):
        train.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "mlp"}, r"describes no network that can be built: it is 'mlp'"),
        ({"network": {"constructor": "os.system"}}, r"describes no network that can be built"),
        ({"network": {"constructor": "mlp", "depth": "x"}}, r"describes no network that can be built"),
        ({"recipe": {"epochs": 0}}, r"Recipe: epochs is at least 1; got 0"),
        ({"recipe": {"bogus": 0}}, r"unexpected keyword argument 'bogus'"),
        ({"recipe": {"epochs": "many"}}, r"not a checkpoint that unbraid wrote"),
        ({"seed": "x"}, r"not a checkpoint that unbraid wrote"),
        (
            {"network": network(width=20).config},
            r"(?s)blocks\.0\.branch\.0\.bias: \[16\] in the file, \[20\] in the network.*and 22 more",
        ),
    ],
)
def test_well_signed_nonsense_in_the_configuration(copy, changes, message):
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))
    resign(copy)
    with pytest.raises(CheckpointError, match=message):
        train.load(copy)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors"])
def test_pickles_are_never_run(copy, tmp_path, name):
    sprung = tmp_path / "sprung"
    (copy / name).write_bytes(pickle.dumps(Trap(sprung)))
    resign(copy)
    with pytest.raises(CheckpointError, match="not a checkpoint that unbraid wrote"):
        train.load(copy)
    torch.save({"stem.weight": Trap(sprung)}, copy / name)
    resign(copy)
    with pytest.raises(CheckpointError, match="not a checkpoint that unbraid wrote"):
        train.load(copy)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", r"the optimiser's stem\.bias/momentum_buffer does not fit this network"),
        ("name", r"the optimiser's nothing/momentum_buffer does not fit this network"),
        ("gone", r"the states of the random generators are unusable"),
    ],
)
def test_a_foreign_optimizer_state(tmp_path, change, message):
    stopped_after(2, network(), examples(), SHORT, folder=tmp_path)
    file = tmp_path / "optimizer.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors["slot/stem.bias/momentum_buffer"] = torch.zeros(3)
    if change == "name":
        tensors["slot/nothing/momentum_buffer"] = tensors.pop("slot/stem.bias/momentum_buffer")
    if change == "gone":
        tensors = {"generator/shuffle": torch.zeros(4, dtype=torch.uint8)}
    save_file(tensors, file)
    resign(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        train.fit(network(), examples(), SHORT, folder=tmp_path, resume=True)


def test_leftovers_of_a_kill_are_cleared(copy):
    """A half-written folder before its commit is worthless; one after it is finished by the next writer."""
    (copy / ".writing").mkdir()
    (copy / ".writing" / "weights.safetensors").write_bytes(b"half")
    assert len(train.load(copy).history) == 4
    committed = copy / ".committed"
    committed.mkdir()
    for name in ("weights.safetensors", "SHA256SUMS"):
        (copy / name).rename(committed / name)
    (copy / "weights.safetensors").write_bytes(b"the last epoch's")
    assert len(train.load(copy).history) == 4


def test_a_file_system_that_refuses_leaves_the_last_good_epoch(tmp_path):
    """A limit on the size of files stands in for a full disk: writes fail half-way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def no_more_room(epoch):
        if epoch.epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))

    try:
        with pytest.raises(
            CheckpointError, match=r"cannot be written: .*What it held before, if anything, is untouched"
        ):
            train.fit(network(), examples(), SHORT, folder=tmp_path, on_epoch=no_more_room)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(train.load(tmp_path).history) == 2
    resumed = train.fit(network(), examples(), SHORT, folder=tmp_path, resume=True)
    assert same_bits(resumed.network, train.fit(network(), examples(), SHORT).network)
    assert {path.name for path in tmp_path.iterdir()} == FILES
