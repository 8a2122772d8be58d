"""Outputs patched from a corrupt run, against forward hooks that write what a run of their own recorded."""

from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from networks import Chain, Does, Residual, lively, mlp, normal
from unbraid import CheckpointError, DataError, chain, edges, lesion, trace

EXAMPLES, LENGTH, WIDTH = 3, 5, 6


def attend(self, h):
    q, k, v = self.qkv(self.norm(h)).chunk(3, -1)
    return self.out(scaled_dot_product_attention(q, k, v, is_causal=True))


def attention():
    parts = {"qkv": nn.Linear(WIDTH, 3 * WIDTH), "out": nn.Linear(WIDTH, WIDTH)}
    return Does(attend, norm=nn.LayerNorm(WIDTH), **parts)


def parallel(self, h):
    return h + self.a(h) + self.b(h)


def projected(self, h):
    return self.skip(h) + self.f(h)


@pytest.fixture(scope="module")
def model():
    return lively(
        Chain(
            Residual(attention()),
            Does(parallel, a=mlp(WIDTH), b=attention()),
            Does(projected, skip=nn.Linear(WIDTH, 4), f=mlp(WIDTH, 6, 4)),
            nn.LayerNorm(4),
        )
    )


@pytest.fixture(scope="module")
def form(model):
    return trace(model, normal(EXAMPLES, LENGTH, WIDTH))


def batches(seed, sizes=(3, 2)):
    return [(normal(n, LENGTH, WIDTH, seed=seed + n), normal(n, LENGTH, 4, seed=50 + n)) for n in sizes]


CLEAN, CORRUPT = batches(1), batches(100)


def square(output, labels):
    return (output - labels).square().mean()


# What is patched, and the modules of the model whose outputs it is.
SETS = {
    (0,): ["0.branch"],
    (1,): ["1.a", "1.b"],
    ((1, 1),): ["1.b"],
    (2,): ["2.f"],
    ((2, "skip"),): ["2.skip"],
    (0, (1, 0)): ["0.branch", "1.a"],
    (0, 2): ["0.branch", "2.f"],
}


@contextmanager
def hooks(modules, hook):
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def by_hand(model, names, clean, corrupt, where=None):
    """The metric with the modules' outputs written over by those of a run at the corrupt batch, at some positions."""
    modules = [model.blocks.get_submodule(name) for name in names]
    total = 0.0
    for (x, labels), (other, _) in zip(clean, corrupt, strict=True):
        with torch.no_grad():
            recorded = outputs_of(model, modules, other)
            with hooks(modules, partial(written_over, recorded, where)):
                total += len(x) * float(square(model(x), labels))
    return total / sum(len(x) for x, _ in clean)


def outputs_of(model, modules, x):
    recorded = {}
    with hooks(modules, lambda module, _, output: recorded.__setitem__(module, output)):
        model(x)
    return recorded


def written_over(recorded, where, module, _, output):
    if where is None:
        return recorded[module]
    output = output.clone()
    output[where] = recorded[module][where]
    return output


@pytest.mark.parametrize("max_batch", [None, 1])
def test_it_is_a_hook_that_writes_what_the_corrupt_run_gave(model, form, max_batch):
    study = lesion(form, CLEAN, square, sets=SETS, replace="corrupt", corrupt=CORRUPT, max_batch=max_batch)
    expected = [by_hand(model, names, CLEAN, CORRUPT) for names in SETS.values()]
    assert study.metrics == pytest.approx(expected, rel=1e-10)
    assert study.whole == pytest.approx(by_hand(model, [], CLEAN, CORRUPT), rel=1e-10)


MASK = torch.tensor([[True, False, False, True, False], [False] * 5, [False, True, True, True, False]])
PLACES = {
    "one": (2, (slice(None), [2])),
    "from the end": (-1, (slice(None), [4])),
    "several": ([0, 3], (slice(None), [0, 3])),
    "a tensor": (torch.tensor([1, 4]), (slice(None), [1, 4])),
    "by example": (MASK, MASK),
}


@pytest.mark.parametrize(("positions", "where"), PLACES.values(), ids=PLACES)
def test_only_chosen_positions_are_patched(model, form, positions, where):
    """As of a hook that writes into an output, so that later branches of a set answer to earlier ones elsewhere."""
    clean, corrupt = batches(1, (3, 3)), batches(100, (3, 3))
    study = lesion(form, clean, square, sets=SETS, replace="corrupt", corrupt=corrupt, positions=positions)
    expected = [by_hand(model, names, clean, corrupt, where) for names in SETS.values()]
    assert study.metrics == pytest.approx(expected, rel=1e-10)
    assert study.whole == pytest.approx(by_hand(model, [], clean, corrupt), rel=1e-10)


def test_all_positions_are_the_whole_output(form):
    every = lesion(form, CLEAN, square, sets=SETS, replace="corrupt", corrupt=CORRUPT, positions=range(LENGTH))
    whole = lesion(form, CLEAN, square, sets=SETS, replace="corrupt", corrupt=CORRUPT)
    assert every.metrics == pytest.approx(whole.metrics, rel=1e-12)


def test_denoising_is_noising_with_the_runs_exchanged(model, form):
    """And the exchange is seen: neither direction gives the other's numbers."""
    labels = [labels for _, labels in CLEAN]
    corrupt = [(x, y) for (x, _), y in zip(CORRUPT, labels, strict=True)]
    noising = lesion(form, CLEAN, square, replace="corrupt", corrupt=corrupt)
    denoising = lesion(form, corrupt, square, replace="corrupt", corrupt=CLEAN)
    names = [["0.branch"], ["1.a", "1.b"], ["2.f"]]
    assert denoising.metrics == pytest.approx([by_hand(model, n, corrupt, CLEAN) for n in names], rel=1e-10)
    for ours, theirs in zip(noising.metrics, denoising.metrics, strict=True):
        assert abs(ours - theirs) > 1e-3 * ours
    assert noising.whole != pytest.approx(denoising.whole, rel=1e-3)


def test_at_the_clean_batch_nothing_changes(form):
    for positions in (None, 1):
        study = lesion(form, CLEAN, square, sets=SETS, replace="corrupt", corrupt=CLEAN, positions=positions)
        assert study.metrics == pytest.approx([study.whole] * len(SETS), rel=1e-12)


def test_layers_of_a_chain_are_patched(model):
    net = lively(nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 4)))
    form = chain(net, normal(EXAMPLES, LENGTH, WIDTH), layers=["0", "2"])
    study = lesion(form, CLEAN, square, replace="corrupt", corrupt=[x for x, _ in CORRUPT])
    # The layers in one line: whatever is patched, the rest follows from it, and the output is the corrupt run's.
    with torch.no_grad():
        runs = [(len(x), float(square(net(x), y))) for (x, _), (_, y) in zip(CORRUPT, CLEAN, strict=True)]
    expected = sum(n * value for n, value in runs) / sum(n for n, _ in runs)
    assert study.metrics == pytest.approx([expected, expected], rel=1e-10)


def test_corrupt_batches_are_inputs_or_pairs_and_read_once(form):
    study = lesion(form, CLEAN, square, replace="corrupt", corrupt=CORRUPT)
    bare = lesion(form, iter(CLEAN), square, replace="corrupt", corrupt=({"x": x} for x, _ in CORRUPT))
    assert bare.metrics == study.metrics


def test_the_study_says_how_it_was_made(form):
    study = lesion(form, CLEAN, square, replace="corrupt", corrupt=CORRUPT)
    assert "; output replaced by that at the corrupt batch; 5 examples" in study.caption
    for positions, said in ((2, "at position 2"), ([0, -1], "at positions 0, -1")):
        study = lesion(form, CLEAN, square, replace="corrupt", corrupt=CORRUPT, positions=positions)
        assert f"; output replaced by that at the corrupt batch, {said}; 5 examples" in study.caption
        assert study.to_dict()["positions"] == study.positions == said


def test_a_stopped_study_goes_on_and_asks_for_the_same_corrupt_batches(form, tmp_path):
    class StoppedError(Exception):
        pass

    def stops():
        yield CORRUPT[0]
        raise StoppedError

    call = {"sets": SETS, "replace": "corrupt", "positions": 1}
    unbroken = lesion(form, CLEAN, square, corrupt=CORRUPT, **call)
    with pytest.raises(StoppedError):
        lesion(form, CLEAN, square, corrupt=stops(), resume=tmp_path / "a", **call)
    asked = []

    def noted(output, labels):
        asked.append(len(labels))
        return square(output, labels)

    again = lesion(form, CLEAN, noted, corrupt=CORRUPT, resume=tmp_path / "a", **call)
    assert again.metrics == unbroken.metrics
    assert set(asked) == {2}  # the batch of three was done
    other = lesion(form, CLEAN, square, corrupt=batches(300), resume=tmp_path / "a", **call)
    assert other.metrics == lesion(form, CLEAN, square, corrupt=batches(300), **call).metrics
    with pytest.raises(CheckpointError, match="another"):
        lesion(form, CLEAN, square, corrupt=CORRUPT, resume=tmp_path / "a", **{**call, "positions": 2})


REFUSED = {
    "no corrupt": (ValueError, {"corrupt": None}, r'"corrupt" takes outputs from other batches: give them as corrupt='),
    "corrupt, zero": (ValueError, {"replace": "zero"}, r'corrupt: it goes with replace="corrupt"; replace is "zero"'),
    "fewer": (DataError, {"corrupt": CORRUPT[:1]}, r"batches has 2, and corrupt has 1"),
    "fewer, unknown": (DataError, {"corrupt": iter(CORRUPT[:1])}, r"batches has more than 1, and corrupt has 1"),
    "more, unknown": (DataError, {"corrupt": iter(CORRUPT * 2)}, r"batches has 2, and corrupt has more than 2"),
    "examples": (
        DataError,
        {"corrupt": CORRUPT[::-1]},
        r"Batch 0 is \[3, 5, 6\] in batches, and \[2, 5, 6\] in corrupt",
    ),
    "width": (
        DataError,
        {"corrupt": [normal(3, 5, 7), normal(2, 5, 7)]},
        r"Batch 0 is \[3, 5, 6\] in batches, and \[3, 5, 7\] in corrupt",
    ),
    "no inputs": (
        DataError,
        {"corrupt": ["a", "b"]},
        r"inputs alone, a tensor or a dict, or a pair .* batch 0 is a str",
    ),
    "no position": (
        IndexError,
        {"positions": [1, 7]},
        r"there is no position 7; batch 0 has 5, numbered 0 to 4, or −5 to −1",
    ),
    "mask": (DataError, {"positions": MASK}, r"it is \[3, 5\], and batch 1 is \[2, 5\]"),
    "floats": (
        ValueError,
        {"positions": torch.ones(2)},
        r"an int, several ints, or a bool tensor .*; got a tensor \[2\] of float32",
    ),
    "none": (ValueError, {"positions": []}, r"several ints, .* got \[\]"),
    "flat mask": (ValueError, {"positions": MASK[0]}, r"got a tensor \[5\] of bool"),
}


@pytest.mark.parametrize(("kind", "call", "message"), REFUSED.values(), ids=REFUSED)
def test_errors_say_the_rule_and_what_came(form, kind, call, message):
    with pytest.raises(kind, match=message):
        lesion(form, CLEAN, square, **{"replace": "corrupt", "corrupt": CORRUPT, **call})


def test_a_stream_without_positions_is_said():
    form = trace(lively(Chain(Residual(mlp(6)))), normal(3, 6))
    data = [(normal(3, 6), normal(3, 6))]
    with pytest.raises(ValueError, match=r"only streams \[batch, positions, width\] have positions; .* \['batch', 6\]"):
        lesion(form, data, square, replace="corrupt", corrupt=data, positions=0)
    with pytest.raises(ValueError, match=r'positions: it goes with replace="corrupt"; replace is "mean"'):
        lesion(form, data, square, replace="mean", positions=0)


def test_a_circuit_is_patched_in_the_form_that_it_was_made_of(form):
    study = edges(form, CLEAN[0][0], fill="zero", target=lambda output: output[:, 0, 0])
    circuit = form.only(study.circuit(2), fill="zero")
    with pytest.raises(ValueError, match="this form runs a circuit, in which readers hear"):
        lesion(circuit, CLEAN, square, replace="corrupt", corrupt=CORRUPT)
