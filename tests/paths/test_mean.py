"""Spectra of a loss over a data set, and while a network is trained."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy

import unbraid
from networks import error, normal
from unbraid import data, nn, train
from unbraid.errors import DataError
from unbraid.paths import SpectrumLog, gradient_spectrum, mean_spectrum


@pytest.fixture(scope="module")
def setting():
    network = nn.mlp(inputs=6, classes=3, width=8, depth=4, norm="layer").double().eval()
    x = normal(7, 6)
    return unbraid.trace(network, x), x, torch.arange(7) % 3


def one_by_one(form, x, labels, at="source"):
    return [
        gradient_spectrum(form, x[i : i + 1], target=lambda o, i=i: cross_entropy(o, labels[i : i + 1])[None], at=at)
        for i in range(len(x))
    ]


@pytest.mark.parametrize("sizes", [(7,), (4, 3), (1, 1, 5)])
def test_the_mean_is_over_examples_however_they_are_batched(setting, sizes):
    form, x, labels = setting
    found = mean_spectrum(form, list(zip(x.split(sizes), labels.split(sizes), strict=True)))
    alone = one_by_one(form, x, labels)
    assert error(found.norms, torch.stack([one.norms for one in alone]).mean(0)) < 1e-12
    assert error(found.signed, torch.stack([one.signed for one in alone]).mean(0)) < 1e-12
    assert found.loss == pytest.approx(float(cross_entropy(form(x), labels)), rel=1e-12)
    assert (found.examples, found.counts) == (7, (1, 4, 6, 4, 1))
    assert found.error < 1e-10
    assert found.share.sum() == pytest.approx(1.0)


def test_the_spread_is_the_standard_error_of_equal_batches(setting):
    form, x, labels = setting
    parts = list(zip(x[:6].split(2), labels[:6].split(2), strict=True))
    alone = torch.stack([mean_spectrum(form, [part]).norms for part in parts])
    assert error(mean_spectrum(form, parts).spread, alone.std(0) / 3**0.5) < 1e-9
    assert mean_spectrum(form, parts[:1]).spread.isnan().all()


def test_at_a_block_parameters_are_split_too(setting):
    form, x, labels = setting
    found = mean_spectrum(form, [(x, labels)], at=1)
    whole = gradient_spectrum(form, x, target=lambda o: cross_entropy(o, labels, reduction="none"), at=1)
    assert found.counts == (1, 2, 1)
    assert error(found.parameter_norms, whole.parameter_norms.double()) < 1e-12


def test_a_mistake_in_one_batch_is_seen(setting, monkeypatch):
    from unbraid.errors import InexactError
    from unbraid.walk import Polynomials

    form, x, labels = setting
    monkeypatch.setattr(Polynomials, "plus", lambda self, a, b: a)
    with pytest.raises(InexactError, match="the lengths must sum to the gradient"):
        mean_spectrum(form, [(x, labels)])


def test_no_data(setting):
    with pytest.raises(DataError, match="there was none"):
        mean_spectrum(setting[0], [])


def test_a_mean_speaks(setting):
    form, x, labels = setting
    found = mean_spectrum(form, [(x, labels)])
    assert found.table().row_count == 5
    assert json.loads(json.dumps(found.to_dict()))["examples"] == 7
    assert found.mean_length == pytest.approx(float((torch.arange(5) * found.share).sum()))
    assert found.effective[0] <= found.mean_length <= found.effective[1]


class Writer:
    """What a TensorBoard writer is for the log."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars.append((tag, scalar_value, global_step))


def test_a_log_sees_the_network_of_its_moment(tmp_path):
    """Called by `train.fit` after every epoch; the last record is the spectrum of the trained network, traced anew."""
    network = nn.mlp(inputs=64, depth=4, width=16, generator=torch.Generator().manual_seed(0)).eval()
    digits = data.digits().flat()
    x, labels = digits.test.inputs[:16], digits.test.labels[:16]
    form = unbraid.trace(network, x)
    writer = Writer()
    log = SpectrumLog(form, [(x, labels)], every=2, file=tmp_path / "spectra.jsonl", writer=writer)
    before = mean_spectrum(form, [(x, labels)])
    train.fit(network, digits, train.Recipe(epochs=3, lr=0.05), on_epoch=log)
    assert [step for step, _ in log.records] == [0, 2]
    after = mean_spectrum(unbraid.trace(network.eval(), x), [(x, labels)])
    assert error(log.records[-1][1].norms, after.norms) < 1e-5
    assert error(before.norms, after.norms) > 0.1
    lines = [json.loads(line) for line in (tmp_path / "spectra.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2]
    assert lines[-1]["norms"] == log.records[-1][1].norms.tolist()
    assert {tag for tag, _, _ in writer.scalars} == {
        f"unbraid/{n}" for n in ("loss", "mean length", "95 % from", "95 % to")
    }
    assert log.table().row_count == 2
    assert log.plot().get_suptitle().startswith("Mean path length")


def test_a_log_in_a_loop_of_one_s_own(setting):
    form, x, labels = setting
    log = SpectrumLog(form, [(x, labels)], every=3)
    for step in range(10, 17):
        log(step)
    assert [step for step, _ in log.records] == [10, 13, 16]


def test_a_log_that_cannot_be_written_is_known_at_once(setting, tmp_path):
    with pytest.raises(FileNotFoundError):
        SpectrumLog(setting[0], [], file=tmp_path / "nowhere" / "spectra.jsonl")
    with pytest.raises(ValueError, match="every must be at least 1 call, and 0 came"):
        SpectrumLog(setting[0], [], every=0)


def test_a_tensorboard_writer_is_a_writer():
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    from unbraid.results import ScalarWriter

    assert issubclass(tensorboard.SummaryWriter, ScalarWriter)
