"""A lesion study against hooks that silence the branch in the original model, and against rebuilt networks."""

import copy
import math
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from networks import Chain, Residual, error, lively, mlp, normal
from real_models import real
from unbraid import DataError, ShapeError, chain, lesion, trace
from unbraid import nn as ours
from unbraid.graph import Segment

X = normal(3, 6)


def square(output, labels):
    """A metric that keeps all that a network says apart, in float64."""
    return (output.detach().double() - labels).square().mean()


def some_batches(*sizes, width=6, out=4):
    return [(normal(size, width, seed=size), normal(size, out, seed=50 + size)) for size in sizes]


def mean_over(batches, run):
    """The metric averaged by hand."""
    with torch.no_grad():
        values = [(len(labels), float(square(run(x), labels))) for x, labels in batches]
    return sum(n * value for n, value in values) / sum(n for n, _ in values)


@contextmanager
def hooked(modules, hook):
    def changed(module, inputs, output):
        if isinstance(output, tuple):
            return (hook(module, output[0]), *output[1:])
        return hook(module, output)

    handles = [module.register_forward_hook(changed) for module in modules]
    yield
    for handle in handles:
        handle.remove()


def zero(module, output):
    return output * 0


class Side(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = mlp(6), mlp(6)

    def forward(self, x):
        return x + self.a(x) + self.b(x)


class Down(nn.Module):
    def __init__(self):
        super().__init__()
        self.p, self.f = nn.Linear(6, 4), mlp(6, 6, 4)

    def forward(self, x):
        return self.p(x) + self.f(x)


@pytest.fixture(scope="module")
def model():
    inner = nn.Sequential(nn.Linear(6, 6), Residual(mlp(6)), nn.Linear(6, 6))
    return lively(Chain(Residual(mlp(6)), Side(), Residual(inner), Down(), nn.LayerNorm(4)))


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


BRANCHES = {0: ["0.branch"], 1: ["1.a", "1.b"], 2: ["2.branch"], 3: ["3.f"], 4: ["2.branch.1.branch"]}
PARTS = {**{(k,): names for k, names in BRANCHES.items()}, ((1, 0),): ["1.a"], ((1, 1), 3): ["1.b", "3.f"]}


def modules_of(model, names):
    return [model.blocks.get_submodule(name) for name in names]


@pytest.mark.parametrize("max_batch", [None, 1, 5, 7, 1000])
def test_every_lesion_is_the_model_with_a_silent_branch(model, form, max_batch):
    data = some_batches(4, 3, 1)
    found = lesion(form, data, square, sets=PARTS, max_batch=max_batch)
    assert found.whole == pytest.approx(mean_over(data, model), rel=1e-12)
    assert found.sets == tuple(PARTS)
    assert found.examples == 8
    for metric, names in zip(found.metrics, PARTS.values(), strict=True):
        with hooked(modules_of(model, names), zero):
            assert metric == pytest.approx(mean_over(data, model), rel=1e-12)


def test_singles_and_pairs_are_the_naive_loop(form):
    data = some_batches(4, 2)
    singles, pairs = lesion(form, data, square), lesion(form, data, square, sets="pairs")
    assert singles.stacked
    assert singles.sets == ((0,), (1,), (2,), (3,))
    assert pairs.sets == tuple(combinations(range(4), 2))
    for study in (singles, pairs):
        for which, metric, delta in zip(study.sets, study.metrics, study.delta, strict=True):
            naive = form.without(*which)
            assert metric == pytest.approx(mean_over(data, naive), rel=1e-12)
            assert delta == pytest.approx(metric - study.whole)


def test_deleting_nothing_changes_nothing(form):
    data = some_batches(4)
    study = lesion(form, data, square, sets=[(), (0, 0), (0,)])
    assert study.delta[0] == 0
    assert study.metrics[1] == study.metrics[2] != study.whole
    assert study.names[0] == "nothing"


def test_a_form_that_lacks_a_block_already(form):
    data = some_batches(4)
    study = lesion(form.without(1), data, square, sets=[(0,), (1,)])
    assert study.whole == pytest.approx(mean_over(data, form.without(1)), rel=1e-12)
    assert study.metrics[0] == pytest.approx(mean_over(data, form.without(0, 1)), rel=1e-12)
    assert study.metrics[1] == pytest.approx(study.whole, rel=1e-12)


def test_mean_replacement_is_a_hook_that_returns_the_mean(model, form):
    data = some_batches(4, 3)
    study = lesion(form, iter_again(data), square, sets=[(0,), (3,), ((1, 1),), (0, 3)], replace="mean")
    for names, metric in zip((["0.branch"], ["3.f"], ["1.b"], ["0.branch", "3.f"]), study.metrics, strict=True):
        modules, means = modules_of(model, names), {}
        for module in modules:
            seen = []
            handle = module.register_forward_hook(lambda m, i, output, seen=seen: seen.append(output))
            with torch.no_grad():
                for x, _ in data:
                    model(x)
            handle.remove()
            means[module] = torch.cat(seen).mean(0, keepdim=True)
        with hooked(modules, lambda module, output, means=means: means[module].expand_as(output)):
            assert metric == pytest.approx(mean_over(data, model), rel=1e-12)


class iter_again:  # noqa: N801
    """Batches without a length, to be read more than once."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_resampling_takes_another_examples_output_of_the_whole_model(model, form):
    """With two examples there is one derangement, so a hook can know it."""
    data = some_batches(2)
    ((x, labels),) = data
    study = lesion(form, data, square, sets=[(0,), (0, 3)], replace="resample")
    clean = {}
    for name in ("0.branch", "3.f"):
        (module,) = modules_of(model, [name])
        with hooked([module], lambda m, output, name=name: clean.setdefault(name, output)), torch.no_grad():
            model(x)
    for names, metric in zip((["0.branch"], ["0.branch", "3.f"]), study.metrics, strict=True):
        swaps = dict(zip(modules_of(model, names), [clean[name].flip(0) for name in names], strict=True))
        with hooked(swaps, lambda module, output, swaps=swaps: swaps[module]):
            assert metric == pytest.approx(float(square(model(x), labels)), rel=1e-12)


def test_resampling_leaves_no_example_in_its_place(form):
    data, seen = some_batches(5), []

    def metric(output, labels):
        seen.append(output)
        return output.sum()

    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        lesion(form, data, metric, sets=[(0,)], replace="resample", generator=generator)
    whole = form(data[0][0])
    changed = [output for output in seen if error(output, whole) > 1e-9]
    assert len(changed) == 20
    assert all(((output - whole).abs().amax(1) > 1e-9).all() for output in changed)
    assert len({round(float(output.norm()), 9) for output in changed}) > 5  # drawn anew each time


REAL = {
    "resnet18": lambda model: [block.bn2 for stage in (1, 2, 3, 4) for block in getattr(model, f"layer{stage}")],
    "vit_tiny_patch16_224": lambda model: [m for block in model.blocks for m in (block.attn, block.mlp)],
    "GPT2": lambda model: [m for block in model.transformer.h for m in (block.attn, block.mlp)],
}


@pytest.mark.parametrize("name", REAL)
def test_real_models_against_hooks(name):
    model, args, kwargs, form, _ = real(name)
    inputs = args or kwargs

    def logits(output):
        return output if isinstance(output, torch.Tensor) else output.logits

    weights = normal(*logits(model(*args, **kwargs)).shape, seed=9)

    def metric(output, labels):
        return (logits(output) * labels).sum()

    study = lesion(form, [(inputs, weights)], metric)
    assert study.stacked
    expected = []
    with torch.no_grad():
        whole = float(metric(model(*args, **kwargs), weights))
        for module in REAL[name](model):
            with hooked([module], zero):
                expected.append(float(metric(model(*args, **kwargs), weights)))
    size = max(map(abs, expected))
    assert study.whole == pytest.approx(whole, abs=1e-12 * size)
    assert list(study.metrics) == pytest.approx(expected, abs=1e-11 * size)
    assert len(set(study.metrics)) == len(study.metrics)


def test_a_network_rebuilt_without_the_block():
    network = lively(ours.conv1d(layers=14, width=4, norm="batch"), scale=0.3)
    x, labels = normal(3, 1, 16), normal(3, 10, seed=1)
    form = trace(network, x)
    kept = [k for k, block in enumerate(form.blocks) if block.skip == "identity"]
    study = lesion(form, [(x, labels)], square, sets=[(k,) for k in kept])
    assert len(kept) == 4
    for k, metric in zip(kept, study.metrics, strict=True):
        fewer = copy.deepcopy(network)
        fewer.blocks = nn.Sequential(*(b if n != k else nn.ReLU() for n, b in enumerate(network.blocks)))
        assert metric == pytest.approx(float(square(fewer(x), labels)), rel=1e-12)


def test_in_a_chain_the_identity_takes_the_place_of_a_layer():
    model = lively(Chain(mlp(6), mlp(6), mlp(6, 6, 4)))
    form = chain(model, X, layers=["blocks.0", "blocks.1", "blocks.2"])
    data = some_batches(3)
    study = lesion(form, data, square, sets=[(0,), (1,), (0, 1)])
    for which, metric in zip(study.sets, study.metrics, strict=True):
        fewer = nn.Sequential(*(layer for k, layer in enumerate(model.blocks) if k not in which))
        assert metric == pytest.approx(mean_over(data, fewer), rel=1e-12)
    assert study.identity == (0, 1)
    assert "the identity in the place of 2 plain layers" in study.caption
    with pytest.raises(
        ShapeError, match=r"layer 2 has no skip.*changes the size.\n  in   \['batch', 6\]\n  out  \['batch', 4\]"
    ):
        lesion(form, data, square)


# Stacking, and when it must not be.


class Crowd(nn.Module):
    """Each example is divided by the size of the largest of its batch."""

    def forward(self, x):
        return x / x.abs().amax()


def test_examples_that_influence_one_another_run_apart():
    model = lively(Chain(*(Residual(nn.Sequential(mlp(6), Crowd())) for _ in range(4))))
    form = trace(model, X)
    data = some_batches(4, 2, out=6)
    study = lesion(form, data, square)
    assert not study.stacked
    for which, metric in zip(study.sets, study.metrics, strict=True):
        assert metric == pytest.approx(mean_over(data, form.without(*which)), rel=1e-12)


@pytest.mark.parametrize("built_in", ["the size of the batch", "that it is not 1"])
def test_a_graph_that_runs_at_one_batch_size_only_runs_apart(built_in):
    """Stacks, or single examples, that the graph cannot take."""
    form = trace(lively(Chain(*(Residual(mlp(6)) for _ in range(4)))), X)
    data = some_batches(4, 3, out=6)
    expected = [mean_over(data, form.without(k)) for k in range(4)]
    codes = {id(segment): segment.code for segment in form.segments}

    def choosy(segment):
        def code(*values):
            rows = len(values[0])
            if rows == 1 if built_in == "that it is not 1" else rows not in (1, 3, 4):
                raise RuntimeError("shape '[4, 6]' is invalid")
            return codes[id(segment)](*values)

        return replace(segment, code=code)

    steps = tuple(choosy(step) if isinstance(step, Segment) else step for step in form.graph.steps)
    study = lesion(replace(form, graph=replace(form.graph, steps=steps)), data, square)
    assert not study.stacked
    assert list(study.metrics) == pytest.approx(expected, rel=1e-12)


def test_without_its_check_the_sweep_would_be_wrong_there(monkeypatch):
    """The check is what finds it: blind it, and the numbers depart."""
    from unbraid.sweep import _variant_group

    model = lively(Chain(*(Residual(nn.Sequential(mlp(6), Crowd())) for _ in range(4))))
    form = trace(model, X)
    data = some_batches(4, out=6)
    monkeypatch.setattr(_variant_group, "_close", lambda a, b, bound: True)
    study = lesion(form, data, square)
    assert study.stacked
    apart = [abs(m - mean_over(data, form.without(*which))) for which, m in zip(study.sets, study.metrics, strict=True)]
    assert max(apart) > 1e-3


def test_a_recorded_run_has_its_batch_size_built_in():
    model = lively(Chain(*(Residual(mlp(6)) for _ in range(3)), nn.Linear(6, 4)))
    form = trace(model, X, tracer="dispatch")
    data = some_batches(3)
    study = lesion(form, data, square)
    assert not study.stacked
    for which, metric in zip(study.sets, study.metrics, strict=True):
        assert metric == pytest.approx(mean_over(data, form.without(*which)), rel=1e-12)
    mean = lesion(form, data, square, replace="mean")
    assert all(math.isfinite(value) and value != mean.whole for value in mean.metrics)


def test_dropout_and_batch_statistics_are_refused_unless_asked_for():
    noisy = lively(Chain(*(Residual(nn.Sequential(mlp(6), nn.Dropout(0.5))) for _ in range(2)))).train()
    form = trace(noisy, X, tolerance=math.inf)
    data = some_batches(3, out=6)
    with pytest.raises(
        ValueError, match=r"lesion: .*mixed with chance.*dropout at \w+.py:\d+ \(random\).\n  Trace the model in eval"
    ):
        lesion(form, data, square)
    assert not lesion(form, data, square, allow_random=True).stacked
    assert lesion(trace(noisy.eval(), X), data, square).stacked
    normed = lively(Chain(*(Residual(nn.Sequential(mlp(6), nn.BatchNorm1d(6))) for _ in range(2)))).train()
    form = trace(normed, X)
    with pytest.raises(
        ValueError, match=r"batch_norm\w* at \S+ \(in training mode it uses the statistics of the batch\)"
    ):
        lesion(form, data, square)
    study = lesion(form, data, square, allow_random=True)
    assert not study.stacked
    for which, metric in zip(study.sets, study.metrics, strict=True):
        assert metric == pytest.approx(mean_over(data, form.without(*which)), rel=1e-12)


# Errors.


def test_errors_say_the_rule_and_what_came(form):
    data = some_batches(3)
    with pytest.raises(DataError, match=r"there was none\. An iterator that has been read once is empty"):
        lesion(form, [], square)
    with pytest.raises(ValueError, match=r'sets: "single", "pairs", or sets of blocks such as .*; got "triples"'):
        lesion(form, data, square, sets="triples")
    with pytest.raises(ValueError, match=r'replace: "zero", "mean", "resample", "identity" or "corrupt"; got "zeros"'):
        lesion(form, data, square, replace="zeros")
    with pytest.raises(IndexError, match=r"there is no block 9; blocks are numbered 0 to 4"):
        lesion(form, data, square, sets=[(9,)])
    with pytest.raises(IndexError, match=r"block 1 has no branch 2"):
        lesion(form, data, square, sets=[((1, 2),)])
    with pytest.raises(ValueError, match=r"metric: it must give one number for a batch.*; it gave \[3, 4\]"):
        lesion(form, data, lambda output, labels: output)
    with pytest.raises(DataError, match=r"every batch must hold at least 2 examples; one holds 1"):
        lesion(form, some_batches(3, 1), square, replace="resample")


def test_the_mean_reads_the_batches_twice(form):
    with pytest.raises(DataError, match=r"there was none\. An iterator that has been read once is empty"):
        lesion(form, iter(some_batches(3)), square, replace="mean")
    assert lesion(form, iter(some_batches(3)), square).examples == 3


def test_the_mean_needs_equal_sizes():
    form = real("GPT2")[3]
    ids = [torch.randint(3, 30, (2, n), generator=torch.Generator().manual_seed(n)) for n in (5, 6)]
    data = [({"input_ids": i}, None) for i in ids]
    with pytest.raises(DataError, match=r"had \[1, 5, 16\] and has \[1, 6, 16\] in a later batch"):
        lesion(form, data, lambda output, labels: output.logits.sum(), replace="mean", sets=[(0,)])


# What a study shows.


def test_a_study_is_sorted_and_says_how_it_was_made(form):
    study = lesion(form, some_batches(3), square, sets=[(0,), (1,), ((1, 0),)])
    sizes = [abs(study.delta[number]) for number in study.ranked]
    assert sizes == sorted(sizes, reverse=True)
    plain = study.to_dict()
    assert [row["metric"] for row in plain["lesions"]] == list(study.metrics)
    assert plain["lesions"][2]["without"] == [(1, 0)]
    assert study.names == ("blocks.0", "blocks.1", "blocks.1.a")
    html = study._repr_html_()
    assert html.count("<tr>") == 4
    assert "output left out; 3 examples" in html
    first = study.ranked[0]
    assert f"{study.metrics[first]:.4g}" in next(iter(study.table().columns[2].cells))


def test_a_study_draws_itself(form):
    data = some_batches(3)
    singles = lesion(form, data, square).plot("squared error")
    assert singles.axes[0].get_ylabel() == "squared error"
    assert len(lesion(form, data, square, sets="pairs").plot().axes[0].images) == 1
    mixed = lesion(form, data, square, sets=[(0,), (0, 1), ((1, 0), 2)]).plot()
    assert [label.get_text() for label in mixed.axes[0].get_xticklabels()] == ["0", "0, 1", "(1, 0), 2"]


def test_names_are_escaped(form):
    study = lesion(form, some_batches(3), square, sets=[(0,)])
    evil = type(study)(**{**vars_of(study), "names": ("<script>",)})
    assert "<script>" not in evil._repr_html_()


def vars_of(study):
    return {name: getattr(study, name) for name in study.__dataclass_fields__}


def test_the_fork_is_not_touched(model, form):
    """A sweep leaves the form and the inputs as they were."""
    x = normal(4, 6, seed=4)
    before, kept = form(x), x.clone()
    lesion(form, [(x, normal(4, 4))], square, sets="pairs")
    assert x.equal(kept)
    assert form(x).equal(before)
    assert error(form(x), model(x)) < 1e-12
