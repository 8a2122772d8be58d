"""Diagnoses taken while a network is trained: by `train.fit`, in a loop, and by Lightning."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy

import torchvision_stub  # noqa: F401  (torchmetrics, which Lightning brings, imports torchvision)
import unbraid
import unbraid.nn as unn
from unbraid import data, train
from unbraid.gradients import DiagnosisLog, diagnose


class Writer:
    """What a TensorBoard writer is for the log."""

    def __init__(self):
        self.scalars = {}

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars.setdefault(tag, []).append((global_step, scalar_value))


@pytest.fixture
def network():
    return unn.mlp(inputs=64, depth=3, width=16, norm=None, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def digits():
    return data.digits().flat()


def batches(digits):
    return [(digits.test.inputs[:16], digits.test.labels[:16])]


def test_fit_calls_the_log_and_the_last_record_is_of_the_trained_network(network, digits, tmp_path):
    writer = Writer()
    file = tmp_path / "signal.jsonl"
    log = DiagnosisLog(unbraid.trace(network, batches(digits)[0][0]), batches(digits), file=file, writer=writer)
    train.fit(network, digits, train.Recipe(epochs=2), on_epoch=log)
    assert [step for step, _ in log.records] == [0, 1]
    after = diagnose(network.eval(), batches(digits))
    assert log.records[-1][1].signal.gradient.tolist() == pytest.approx(after.signal.gradient.tolist(), rel=1e-5)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1]["signal"]["gradient"] == log.records[1][1].signal.gradient.tolist()
    assert [step for step, _ in writer.scalars["unbraid/findings"]] == [0, 1]
    assert log.table().row_count == 2
    assert log.plot().axes


def test_a_loop_of_one_s_own(network, digits):
    log = DiagnosisLog(unbraid.trace(network, batches(digits)[0][0]), batches(digits), every=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(5):
        optimizer.zero_grad()
        cross_entropy(network(digits.train.inputs[:32]), digits.train.labels[:32]).backward()
        optimizer.step()
        log(step)
    assert [step for step, _ in log.records] == [0, 2, 4]
    assert len({float(found.signal.gradient[0]) for _, found in log.records}) == 3


@pytest.mark.filterwarnings("ignore")  # Lightning warns of its own deprecations and of small machines
def test_lightning_calls_the_log_after_every_epoch(network, digits, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def training_step(self, batch, _):
            return cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    log = DiagnosisLog(unbraid.trace(network, batches(digits)[0][0]), batches(digits))
    before = diagnose(network, batches(digits)).signal.gradient
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[log.lightning()], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    examples = torch.utils.data.TensorDataset(digits.train.inputs[:64], digits.train.labels[:64])
    trainer.fit(Module(), torch.utils.data.DataLoader(examples, batch_size=16))
    assert [step for step, _ in log.records] == [0, 1]
    assert not torch.allclose(log.records[-1][1].signal.gradient, before)


def test_without_lightning_it_says_what_to_install(network, digits, monkeypatch):
    from importlib import util

    monkeypatch.setattr(util, "find_spec", lambda name: None)
    log = DiagnosisLog(unbraid.trace(network, batches(digits)[0][0]), batches(digits))
    with pytest.raises(unbraid.UnbraidError, match="pip install lightning"):
        log.lightning()


def test_what_cannot_be_is_known_at_once(network, digits, tmp_path):
    form = unbraid.trace(network, batches(digits)[0][0])
    with pytest.raises(ValueError, match="every must be at least 1 call, and 0 came"):
        DiagnosisLog(form, [], every=0)
    with pytest.raises(FileNotFoundError):
        DiagnosisLog(form, [], file=tmp_path / "nowhere" / "a.jsonl")
