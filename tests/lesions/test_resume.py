"""Sweeps over data that are stopped go on where they were, and end with the numbers of unbroken ones."""

import sqlite3

import pytest
import torch
from torch.nn.functional import cross_entropy

import unbraid
from unbraid import nn
from unbraid.errors import CheckpointError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(seed=1, batches=5):
    generator = seeded(seed)
    return [
        (torch.randn(6, 40, generator=generator), torch.randint(10, (6,), generator=generator)) for _ in range(batches)
    ]


@pytest.fixture(scope="module")
def form():
    network = nn.mlp(depth=4, width=12, norm=None, scale="1/sqrt(K)", generator=seeded()).eval()
    return unbraid.trace(network, data()[0][0])


class Stops:
    """Batches of which only the first few can be read, the first time."""

    def __init__(self, batches, after):
        self.batches, self.after = batches, after

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for number, batch in enumerate(self.batches):
            if number == self.after:
                raise KeyboardInterrupt
            yield batch


RESUMED = [unbraid.lesion, unbraid.reorderings, unbraid.subsets, unbraid.signal, unbraid.mean_spectrum]
CALLS = {
    "lesion": lambda form, batches, keep: unbraid.lesion(form, batches, cross_entropy, sets="pairs", resume=keep),
    "resampled": lambda form, batches, keep: unbraid.lesion(
        form, batches, cross_entropy, replace="resample", generator=seeded(3), resume=keep
    ),
    "orders": lambda form, batches, keep: unbraid.reorderings(
        form, batches, cross_entropy, swaps=[1, 2], repeats=3, resume=keep
    ),
    "subsets": lambda form, batches, keep: unbraid.subsets(form, batches, cross_entropy, resume=keep),
    "signal": lambda form, batches, keep: unbraid.signal(form, batches, resume=keep),
    "spectrum": lambda form, batches, keep: unbraid.mean_spectrum(form, batches, resume=keep),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_stopped_job_goes_on_to_the_same_bits(name, form, tmp_path, monkeypatch):
    call, batches, file = CALLS[name], data(), tmp_path / "kept.sqlite"
    whole = call(form, batches, None)
    with pytest.raises(KeyboardInterrupt):
        call(form, Stops(batches, 3), file)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)
    again = call(form, batches, file)
    assert repr(again.to_dict()) == repr(whole.to_dict())
    # All is there now: nothing is run any more.
    monkeypatch.setattr("unbraid.walk._run.run", pytest.fail)
    for place in ("unbraid.sweep._variant_group.VariantGroup.outputs", "unbraid.form._linearised.record"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("a finished batch is run again"))
    assert repr(call(form, batches, file).to_dict()) == repr(whole.to_dict())


def test_a_batch_that_changed_is_run_again(form, tmp_path):
    batches, file = data(), tmp_path / "kept.sqlite"
    unbraid.lesion(form, batches, cross_entropy, resume=file)
    changed = [*batches[:2], (batches[2][0] + 1, batches[2][1]), *batches[3:]]
    assert unbraid.lesion(form, changed, cross_entropy, resume=file) == unbraid.lesion(form, changed, cross_entropy)


@pytest.mark.parametrize(
    "other",
    [
        lambda form, batches, file: unbraid.lesion(form, batches, cross_entropy, sets="pairs", resume=file),
        lambda form, batches, file: unbraid.lesion(form, batches, cross_entropy, replace="mean", resume=file),
        lambda form, batches, file: unbraid.lesion(form.without(1), batches, cross_entropy, resume=file),
        lambda form, batches, file: unbraid.signal(form, batches, resume=file),
        lambda form, batches, file: unbraid.lesion(heavier(form), batches, cross_entropy, resume=file),
    ],
)
def test_a_file_of_another_job_is_refused(form, tmp_path, other):
    """Other sets, another replacement, another form, another analysis, other weights."""
    batches, file = data(), tmp_path / "kept.sqlite"
    unbraid.lesion(form, batches, cross_entropy, resume=file)
    with pytest.raises(CheckpointError, match="keeps the runs of another job"):
        other(form, batches, file)


def heavier(form):
    from dataclasses import replace

    name = sorted(form.state)[-1]
    state = dict(form.state)
    state[name] = state[name].clone()
    state[name].view(-1)[-1] += 1
    return replace(form, state=state)


def test_random_operators_cannot_be_kept(form, tmp_path):
    with pytest.raises(ValueError, match="leave out resume or allow_random"):
        unbraid.lesion(form, data(), cross_entropy, allow_random=True, resume=tmp_path / "kept.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(form, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        unbraid.lesion(form, data(), cross_entropy, resume=tmp_path / "none" / "kept.sqlite")


@pytest.mark.parametrize("row", ['{"row": "@@@"}', '{"row": "AAAA"}', '{"other": 1}', "[1]", "no JSON"])
def test_a_damaged_row_is_said(form, tmp_path, row):
    file = tmp_path / "kept.sqlite"
    unbraid.lesion(form, data(), cross_entropy, resume=file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE runs SET result = ? WHERE number = 2", (row,))
    with pytest.raises(CheckpointError, match=r"kept\.sqlite: what is kept here is damaged"):
        unbraid.lesion(form, data(), cross_entropy, resume=file)


@pytest.mark.parametrize(
    ("call", "old", "instead"),
    [
        *[(call, "keep", "give the file as resume=") for call in RESUMED],
        *[(call, "stateful", "give allow_random=") for call in (unbraid.lesion, unbraid.reorderings, unbraid.subsets)],
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_names_that_have_gone_are_told_what_to_give_instead(call, old, instead, form):
    with pytest.raises(TypeError) as caught:
        call(form, data(), **{old: True})
    assert str(caught.value) == f"{call.__name__}: {old}= is gone; {instead}."
