import inspect
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from train._small import SHORT, by_hand, examples, network, same_bits
from unbraid import train
from unbraid.errors import DataError, ShapeError
from unbraid.train import Recipe


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def states():
    # Not Python's own: beartype, which checks annotations in the tests, draws from it.
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


def losses(run):
    return [epoch.train_loss for epoch in run.history]


@pytest.mark.parametrize("make", [network, by_hand])
def test_it_learns(make):
    run = train.fit(make(), examples(), Recipe(epochs=30, batch_size=50, lr=0.05))
    assert run.history[-1].train_loss < run.history[0].train_loss / 2
    assert run.test_error < 20  # guessing gives 67
    assert not run.network.training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("make", [network, by_hand])
def test_one_seed_gives_the_same_bits_and_another_does_not(make, optimizer):
    recipe = Recipe(epochs=3, batch_size=50, lr=0.01, optimizer=optimizer)
    runs = [train.fit(make(), examples(), recipe, seed=seed) for seed in (7, 7, 8)]
    assert same_bits(runs[0].network, runs[1].network)
    assert losses(runs[0]) == losses(runs[1])
    assert not same_bits(runs[0].network, runs[2].network)


def test_global_generators_are_neither_read_nor_changed():
    first, second = by_hand(), by_hand()
    torch.manual_seed(1)
    before = states()
    train.fit(first, examples(), SHORT)
    assert states() == before
    torch.manual_seed(2)
    train.fit(second, examples(), SHORT, on_epoch=lambda _: torch.rand(3))
    assert same_bits(first, second)


def test_layers_draw_anew_in_each_epoch():
    """Were the stream of dropout set back with each epoch, all masks of all epochs would be alike."""

    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(12, 3))
            self.seen = []

        def forward(self, x):
            if self.training:
                self.seen.append(float(torch.rand(())))
            return x @ self.weight

    recorder = Recorder()
    train.fit(recorder, examples(), SHORT)
    assert len(recorder.seen) == len(set(recorder.seen)) == 4 * 7


def test_one_epoch_of_sgd_against_a_loop_written_out():
    """An oracle without any of our code: torch's own loader of the same order, and the update by hand."""
    ours, theirs = network(norm=None, stochastic_depth=0.0), network(norm=None, stochastic_depth=0.0)
    data = examples()
    recipe = Recipe(epochs=1, batch_size=50, lr=0.1, momentum=0.8, weight_decay=0.01)
    run = train.fit(ours, data, recipe, seed=3)
    generator = torch.Generator().manual_seed(3)
    torch.randint(2**31, (), generator=generator)  # the seed of the layers' stream is drawn first
    order = torch.randperm(330, generator=generator)
    velocity = {name: torch.zeros_like(p) for name, p in theirs.named_parameters()}
    total = 0.0
    for rows in order.split(50):
        scores = theirs(data.train_inputs[rows])
        loss = -scores.log_softmax(1)[torch.arange(len(rows)), data.train_labels[rows]].mean()
        theirs.zero_grad()
        loss.backward()
        total += loss.item() * len(rows)
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                velocity[name] = 0.8 * velocity[name] + p.grad + 0.01 * p
                p -= 0.1 * velocity[name]
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p, theirs.get_parameter(name), msg=name)
    assert run.history[0].train_loss == pytest.approx(total / 330)
    wrong = (theirs(data.test_inputs).argmax(1) != data.test_labels).float().mean()
    assert run.test_error == pytest.approx(100 * float(wrong))


class Bomb(nn.Module):
    """A linear model whose output, or the gradient of it, is infinite in one chosen step."""

    def __init__(self, step, *, backward=False):
        super().__init__()
        self.linear = nn.Linear(12, 3)
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.linear.bias)
        self.step, self.backward, self.taken = step, backward, 0

    def forward(self, x):
        outputs = self.linear(x)
        if self.training:
            self.taken += 1
            if self.taken == self.step + 1:
                if not self.backward:
                    return outputs * math.inf
                outputs.register_hook(lambda gradient: gradient * math.inf)
        return outputs


@pytest.mark.parametrize("step", [0, 6, 7, 20])
def test_divergence_is_recorded_with_its_step(step):
    """Seven steps an epoch: step 6 is the last of the first epoch, 7 the first of the second."""
    bomb = Bomb(step)
    run = train.fit(bomb, examples(), SHORT)
    assert run.diverged == step
    assert bomb.taken == step + 1  # not one step more
    assert len(run.history) == step // 7
    assert math.isnan(run.test_error)
    assert all(math.isfinite(loss) for loss in losses(run))
    assert torch.isfinite(bomb.linear.weight).all()  # the bad step was not taken
    assert run.summary == f"diverged at step {step}, after {step // 7} epochs"


@pytest.mark.parametrize(("step", "reported"), [(3, 4), (6, 6)])
def test_weights_ruined_by_a_finite_loss_are_seen(step, reported):
    """An infinite gradient shows in the next step's loss, or, at the end of an epoch, in the weights."""
    run = train.fit(Bomb(step, backward=True), examples(), SHORT)
    assert run.diverged == reported
    assert run.history == ()


def test_a_network_that_cannot_train_diverges_rather_than_crashes():
    """The anchor of the design: residual networks of scale 1 diverge from depth 10 on."""
    deep = network(depth=40, width=64, norm=None, scale=1.0, stochastic_depth=0.0)
    assert train.fit(deep, examples(), SHORT).diverged is not None


def test_outputs_that_are_not_finite_count_as_wrong():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 3)

        def forward(self, x):
            return self.linear(x) if self.training else self.linear(x) * math.nan

    assert train.fit(Broken(), examples(), Recipe(epochs=1)).test_error == 100


def test_inputs_that_do_not_fit():
    wrong = nn.Linear(13, 3)
    with pytest.raises(
        ShapeError, match=r"(?s)Linear does not take the inputs of thirds, \[1, 12\].*data\.flat\(\)"
    ) as e:
        train.fit(wrong, examples())
    assert e.value.shapes == {"inputs": (1, 12)}
    with pytest.raises(ShapeError, match=r"for the 3 classes of thirds; for a batch of 1 it gives \[1, 2\]"):
        train.fit(nn.Linear(12, 2), examples())


def test_the_result_shows_itself():
    seen = []
    run = train.fit(network(), examples(), SHORT, on_epoch=seen.append, seed=5)
    assert tuple(seen) == run.history
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4]
    console = Console(record=True, width=100)
    console.print(run.table())
    assert f"thirds, seed 5: test error {run.test_error:.1f} % after 4 epochs" in console.export_text()
    assert json.loads(json.dumps(run.to_dict(), allow_nan=False))["history"][3]["test_error"] == run.test_error
    curves = {line.get_label(): line.get_ydata() for line in run.plot().axes[0].lines}
    assert list(curves["test"]) == [epoch.test_error for epoch in seen]
    assert run._repr_html_().count("<tr>") == 5


def test_a_diverged_result_shows_itself_too():
    run = train.fit(Bomb(0), examples(), SHORT)
    assert json.loads(json.dumps(run.to_dict(), allow_nan=False))["test_error"] is None
    assert "diverged at step 0" in run._repr_html_()


def test_a_name_cannot_smuggle_markup():
    from dataclasses import replace

    run = train.fit(network(), replace(examples(), name="<script>alert(1)</script>[bold]"), SHORT)
    assert "<script>" not in run._repr_html_()
    console = Console(record=True, width=100)
    console.print(run.table())
    assert "[bold]" in console.export_text()


def test_batches_are_no_data_set():
    """Past the tests' own check of types, which a user has not."""
    batches = [(torch.zeros(4, 40), torch.zeros(4, dtype=torch.int64))]
    call = inspect.unwrap(train.fit)
    with pytest.raises(DataError, match=r"^fit: data is a Dataset, .*; a list came\. Make one .*data\.from_arrays\("):
        call(network(), batches)
