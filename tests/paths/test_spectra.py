"""What spectra say beside their sum: single terms, blocks and parameters, options, refusals; and what breaks them."""

from itertools import product
from math import comb

import pytest
import torch
from torch import nn

import unbraid.nn as unn
from networks import F64, Chain, Residual, error, lively, mlp, normal
from paths.test_brute_force import Verbs, brute, ordered
from plans import EVERY, chain, made
from unbraid import trace
from unbraid.errors import InexactError
from unbraid.form import Linearised
from unbraid.paths import (
    GradientSpectrum,
    all_paths,
    chosen_paths,
    gradient_spectrum,
    sample_paths,
    top_paths,
    value_spectrum,
)
from unbraid.paths._all_paths import beam_search
from unbraid.paths._length_statistics import effective
from unbraid.walk import Lengths, Polynomial, Polynomials


@pytest.fixture(scope="module")
def four():
    """Four residual MLP blocks and nothing else, with the Jacobian of each branch at one input."""
    network = lively(Chain(*(Residual(mlp(3)) for _ in range(4))))
    x = normal(1, 3)
    jacobians, h = [], x
    for block in network.blocks:
        (jacobian,) = torch.autograd.functional.jacobian(block.branch, h).sum(2)
        jacobians.append(jacobian)
        h = block(h).detach()
    return network, x, trace(network, x), jacobians


def test_the_eight_terms_of_equation_11_6_one_by_one(four):
    """∂y/∂f1 = I + J2 + (J3 + J3 J2) + (J4 + J4 J2 + J4 J3 + J4 J3 J2), gathered by length as 1, 3, 3, 1."""
    _, x, form, jacobians = four
    weights = normal(3, seed=5)
    terms = {}
    for picks in product((0, 1), repeat=3):
        term = weights
        for pick, jacobian in reversed(list(zip(picks, jacobians[1:], strict=True))):
            term = term @ jacobian if pick else term
        terms[picks] = term
    spectrum = gradient_spectrum(form, x, target=lambda y: y @ weights, at=0)
    assert spectrum.counts == (1, 3, 3, 1)
    for length, gradient in enumerate(spectrum.gradients):
        expected = sum(term for picks, term in terms.items() if sum(picks) == length)
        assert error(gradient[0], expected) < 1e-10

    # Each by itself: the path that enters block 0 is the term times that block's Jacobian, times the input.
    paths = all_paths(form, x, target=lambda y: y @ weights, linearize="jacobian")
    assert len(paths) == 16
    seen = 0
    for mask, value in zip(paths.masks.tolist(), paths.values, strict=True):
        if mask[0] == 0:
            expected = terms[tuple(choice + 1 for choice in mask[1:])] @ jacobians[0] @ x[0]
            assert abs(value.item() - expected.item()) < 1e-10
            seen += 1
    assert seen == 8


def test_path_counts_of_problem_11_2():
    _, x, form = made(chain(5))
    assert gradient_spectrum(form, x, target=0).counts == (1, 5, 10, 10, 5, 1)
    assert value_spectrum(form, x, target=0).counts == (1, 5, 10, 10, 5, 1)


@pytest.fixture(scope="module")
def trained():
    """Four blocks fitted to a small task."""
    torch.manual_seed(0)
    network = unn.mlp(inputs=6, width=8, depth=4, classes=3, norm=None).to(F64)
    x = normal(64, 6, seed=1)
    labels = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    loss = [nn.functional.cross_entropy(network(x), labels)]
    for _ in range(60):
        optimizer.zero_grad()
        loss[-1].backward()
        optimizer.step()
        loss.append(nn.functional.cross_entropy(network(x), labels))
    assert loss[-1] < 0.5 * loss[0]
    return network.eval(), x, trace(network, x)


def test_figure_11_4_the_16_paths_of_a_trained_network_sum_to_its_output(trained):
    network, x, form = trained
    paths = all_paths(form, x, target=2)
    assert sorted(map(tuple, paths.masks.tolist())) == list(product((-1, 0), repeat=4))
    assert error(paths.values.sum(0) + paths.constants, network(x)[:, 2].detach()) < 1e-10
    assert torch.bincount(paths.lengths).tolist() == [1, 4, 6, 4, 1]


def test_a_loss_is_a_target(trained):
    """Not linear in the output: linearised there, the remainder with the constants."""
    network, x, form = trained
    labels = torch.arange(64) % 3

    def loss(output):
        return nn.functional.cross_entropy(output, labels, reduction="none")

    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(network(leaf)).sum(), leaf)
    assert error(gradient_spectrum(form, x, target=loss).total(), wanted) < 1e-10
    assert error(value_spectrum(form, x, target=loss).total(), loss(network(x)).detach()) < 1e-10
    paths = all_paths(form, x, target=loss)
    assert error(paths.values.sum(0) + paths.constants, loss(network(x)).detach()) < 1e-10


@pytest.mark.parametrize("block", range(4))
def test_the_gradient_of_a_block_s_parameters_by_length(trained, block):
    """Against autograd with the skips or branches after the block cut, path by path."""
    network, x, form = trained
    found = gradient_spectrum(form, x, target=1, at=block)
    names = [name for name in dict(network.named_parameters()) if name.startswith(f"blocks.{block}.")]
    assert names, "the block has parameters"
    inner = dict(network.named_parameters())
    expected = [dict.fromkeys(names, 0.0) for _ in range(4 - block)]
    for picks in product((0, 1), repeat=3 - block):
        h = network.stem(x)
        for k, layer in enumerate(network.blocks):
            branch = layer.scale(layer.branch(h))
            if k < block:
                h = (h + branch).detach()
            elif k == block:
                h = h.detach() + branch
            else:
                h = h.detach() + branch if picks[k - block - 1] else h + branch.detach()
        output = network.head(h)[:, 1].sum()
        gradients = torch.autograd.grad(output, [inner[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                expected[sum(picks)][name] = expected[sum(picks)][name] + gradient
    for length, by_name in enumerate(expected):
        norm = sum(g.square().sum() for g in by_name.values()) ** 0.5
        assert found.parameter_norms[length] == pytest.approx(float(norm), rel=1e-10)


def test_a_source_has_no_parameter_norms(trained):
    assert gradient_spectrum(trained[2], trained[1], target=1).parameter_norms is None


def test_norms_shares_and_mean_length_by_hand():
    _, x, form = made(chain(3))
    found = gradient_spectrum(form, x, target=1)
    whole = found.gradients.sum(0)
    for m in range(4):
        rows = found.gradients[m]
        assert found.norms[m] == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-12)
        along = ((rows * whole).sum(1) / whole.square().sum(1)).mean()
        assert found.signed[m] == pytest.approx(float(along), rel=1e-12)
    assert float(found.signed.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(found.share.sum()) == pytest.approx(1.0, rel=1e-12)
    assert found.mean_length == pytest.approx(float(sum(m * found.norms[m] for m in range(4)) / found.norms.sum()))


@pytest.mark.parametrize(
    ("shares", "interval"),
    [([1.0], (0, 0)), ([0.5, 0.5], (0, 1)), ([0.02, 0.96, 0.02], (1, 1)), ([0.3, 0.3, 0.36, 0.04], (0, 2))],
)
def test_the_shortest_interval_of_95_percent(shares, interval):
    assert effective(torch.tensor(shares)) == interval


@pytest.mark.parametrize("longest", [0, 1, 3, 4, 9])
def test_max_length_leaves_the_longer_paths_out(longest):
    _, x, form = made(chain(4))
    whole = gradient_spectrum(form, x, target=1)
    found = gradient_spectrum(form, x, target=1, max_length=longest)
    kept = min(longest, 4) + 1
    assert found.counts == whole.counts[:kept]
    assert error(found.gradients, whole.gradients[:kept]) < 1e-12
    assert found.error != found.error  # the sum is no longer the gradient: not measured


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks_change_nothing(chunk):
    _, x, form = made(EVERY)
    whole, part = (gradient_spectrum(form, x, target=1, chunk=c) for c in (None, chunk))
    assert error(part.gradients, whole.gradients) < 1e-12
    one, other = (value_spectrum(form, x, target=1, chunk=c) for c in (None, chunk))
    assert error(other.from_input, one.from_input) < 1e-12
    assert error(other.from_constants, one.from_constants) < 1e-12


def test_without_the_check_the_error_is_not_known():
    _, x, form = made(chain(2))
    found = gradient_spectrum(form, x, target=1, check=False)
    assert found.error != found.error
    assert found.model_error != found.model_error
    assert error(found.gradients, gradient_spectrum(form, x, target=1).gradients) == 0.0


def test_results_speak():
    """Tables, plain values and pictures of each result."""
    import json

    _, x, form = made(chain(3))
    for found in (gradient_spectrum(form, x, target=1), gradient_spectrum(form, x, target=1, at=1)):
        assert json.loads(json.dumps(found.to_dict()))["counts"] == list(found.counts)
        assert found.table().row_count == len(found.counts)
        assert found.plot().axes
    values = value_spectrum(form, x, target=1)
    assert json.loads(json.dumps(values.to_dict()))["counts"] == [1, 3, 3, 1]
    assert values.table().row_count == 4
    assert values.plot().axes
    paths = all_paths(form, x, target=1)
    assert paths.table().row_count == 8
    assert paths.to_dict()["blocks"] == [block.name for block in form.blocks]


def test_sampled_paths_are_uniform_over_the_paths_of_a_length():
    """χ² over the 6 paths of length 2 of a chain of 4, and over those of a network where paths meet other blocks."""
    for plan in (chain(4), EVERY):
        _, x, form = made(plan)
        every = all_paths(form, x, target=1)
        drawn = sample_paths(form, x, target=1, per_length=600, generator=torch.Generator().manual_seed(3))
        of_two = [tuple(m) for m, n in zip(every.masks.tolist(), every.lengths.tolist(), strict=True) if n == 2]
        tally = dict.fromkeys(of_two, 0)
        for mask, length in zip(drawn.masks.tolist(), drawn.lengths.tolist(), strict=True):
            if length == 2:
                tally[tuple(mask)] += 1  # a path that is none of them raises
        expected = 600 / len(of_two)
        statistic = sum((n - expected) ** 2 / expected for n in tally.values())
        freedom = len(of_two) - 1
        assert sum(tally.values()) == 600
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5
        assert torch.bincount(drawn.lengths).tolist() == [600] * (int(every.lengths.max()) + 1)


def test_sampling_is_repeatable_and_its_standard_error_is_that_of_a_mean():
    _, x, form = made(chain(4))
    one, other = (sample_paths(form, x, target=1, per_length=8) for _ in range(2))
    assert torch.equal(one.masks, other.masks)
    norms = one.norms[one.lengths == 2]
    mean, deviation = one.mean_norms()[2]
    assert float(mean) == pytest.approx(float(norms.mean()))
    assert float(deviation) == pytest.approx(float(norms.std() / 8**0.5))


@pytest.mark.parametrize("linearize", ["frozen", "jacobian"])
def test_chosen_paths_are_those_of_brute_force(linearize):
    from paths.test_brute_force import VERBS

    network, x, form = made(chain(5))
    every = brute(network, x, VERBS[linearize])
    masks = torch.tensor([[0, -1, -1, 0, 0], [-1] * 5, [0] * 5, [0, -1, -1, 0, 0]])
    found = chosen_paths(form, x, masks=masks, target=1, linearize=linearize, chunk=3)
    assert found.lengths.tolist() == [3, 0, 5, 3]
    for row, mask in enumerate(masks.tolist()):
        _, gradient = every[tuple(mask)]
        assert error(found.values[row], (gradient * x).sum(1)) < 1e-10
        assert float(found.norms[row]) == pytest.approx(float(gradient.norm(dim=1).mean()), rel=1e-10)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([[0, 1]], r"masks are \[paths, 5\], one choice a block; \[1, 2\] came"),
        (
            [[0, -1, 0, -1, 0], [0, -1, 2, 0, 0]],
            r"branches count from 0 and the skip is −1: block .* has branch 0 alone, and path 1 asks for 2\.$",
        ),
        (
            [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0]],
            r"path 0 asks for 1\. In masks of earlier versions .* the skip was 0: subtract 1 from those\.$",
        ),
        ([[0, 0, -3, 0, 0]], r"path 0 asks for -3\.$"),
    ],
)
def test_a_path_that_is_none_is_refused(masks, said):
    _, x, form = made(chain(5))
    with pytest.raises(ValueError, match=said):
        chosen_paths(form, x, masks=torch.tensor(masks), target=1)


def test_a_lower_limit_searches_sooner():
    _, x, form = made(chain(6))
    assert top_paths(form, x, target=1, k=3).exact
    assert not top_paths(form, x, target=1, k=3, limit=63).exact


@pytest.mark.parametrize("linearize", ["frozen", "jacobian"])
def test_top_paths_are_the_largest_by_brute_force(linearize):
    from paths.test_brute_force import VERBS

    network, x, form = made(chain(6))
    merits = {
        mask: float((gradient * x).sum(1).abs().mean())
        for mask, (_, gradient) in brute(network, x, VERBS[linearize]).items()
    }
    best = sorted(merits, key=merits.get, reverse=True)[:5]
    found = top_paths(form, x, target=1, k=5, linearize=linearize)
    assert found.exact
    assert ordered(form, found.masks, False) == best


def test_beam_search_finds_most_of_the_best_paths_where_both_run():
    """Its recall is measured, not promised: on three networks of 2^8 paths, of the ten largest with a beam of 64."""
    recalls = []
    for seed in range(3):
        _, x, form = made(chain(8), seed=seed)
        linear = Linearised.at(form, x, None, 1, frozen=True)
        every = all_paths(form, x, target=1)
        rows = {tuple(mask): row for row, mask in enumerate(every.masks.tolist())}
        found = beam_search(linear, 64)
        assert not found.exact
        for mask, value in zip(found.masks.tolist(), found.values, strict=True):
            assert error(value, every.values[rows[tuple(mask)]]) < 1e-9  # whatever it finds is a path, with its value
        order = every.values.abs().mean(1).argsort(descending=True)[:10]
        best = {tuple(every.masks[row].tolist()) for row in order}
        recalls.append(len(best & set(map(tuple, found.masks.tolist()))) / 10)
    assert sum(recalls) / 3 > 0.6, recalls
    assert len(beam_search(linear, 2**8)) == 2**8  # a beam as wide as the tree loses nothing


def test_too_many_paths_are_refused_and_searched():
    network = unn.mlp(inputs=4, width=3, depth=21, classes=2, norm=None).to(F64).eval()
    x = normal(1, 4)
    form = trace(network, x)
    with pytest.raises(ValueError, match=r"there are 2,097,152 paths, and at most 1,048,576 are listed"):
        all_paths(form, x, target=1)
    found = top_paths(form, x, target=1, k=3, beam=8)
    assert not found.exact
    assert len(found) == 3
    assert found.values.abs().mean(1).diff().max() <= 0
    assert gradient_spectrum(form, x, target=1).counts == tuple(comb(21, m) for m in range(22))


@pytest.mark.parametrize("call", [gradient_spectrum, value_spectrum, all_paths, top_paths, sample_paths])
def test_a_target_that_does_not_fit_is_refused(call):
    _, x, form = made(chain(2))
    with pytest.raises(ValueError, match=r"one int or a tensor \[2\] with values below 3; 7 came"):
        call(form, x, target=7)
    with pytest.raises(ValueError, match=r"needs an output \[batch, positions, classes\], and this one is \[2, 3\]"):
        call(form, x, target=(0, 1))
    with pytest.raises(ValueError, match=r"one number per example, a tensor \[2\]; it gave \[\]"):
        call(form, x, target=lambda output: output.sum())


@pytest.mark.parametrize("block", [2, -3, 99])
def test_a_block_that_is_not_there(block):
    _, x, form = made(chain(2))
    with pytest.raises(IndexError, match=rf"there is no block {block}; blocks are numbered 0 to 1"):
        gradient_spectrum(form, x, target=1, at=block)


def test_top_paths_of_none():
    _, x, form = made(chain(2))
    with pytest.raises(ValueError, match="k must be at least 1, and 0 came"):
        top_paths(form, x, target=1, k=0)


# What breaks the rules, seen.


@pytest.mark.parametrize("at", ["source", 0, 2])
def test_a_shift_lost_at_one_block_is_seen(monkeypatch, at):
    """The sum over lengths stays the gradient; the number of paths and a second point tell."""
    _, x, form = made(chain(5))
    honest = gradient_spectrum(form, x, target=1, at=at, check=False)
    enter = Polynomials.enter

    def lost(self, add, operand, value):
        shifted = enter(self, add, operand, value)
        return Polynomial(value.low, shifted.stack) if add.block == 3 and operand >= 0 else shifted

    monkeypatch.setattr(Polynomials, "enter", lost)
    wrong = gradient_spectrum(form, x, target=1, at=at, check=False)
    assert error(wrong.total(), honest.total()) < 1e-12
    assert error(wrong.gradients, honest.gradients) > 1e-2
    with pytest.raises(InexactError, match=r"times ½ for each branch, .* depart by"):
        gradient_spectrum(form, x, target=1, at=at)


def test_a_lost_path_is_seen(monkeypatch):
    _, x, form = made(chain(4))
    enter = Polynomials.enter

    def lost(self, add, operand, value):
        passed = enter(self, add, operand, value)
        return Polynomial(passed.low, 0 * passed.stack) if add.block == 1 and operand >= 0 else passed

    monkeypatch.setattr(Polynomials, "enter", lost)
    with pytest.raises(InexactError, match=r"the lengths must sum to the gradient to 1e-10; at '.*' they depart by"):
        gradient_spectrum(form, x, target=1)
    with pytest.raises(InexactError, match="value_spectrum: the lengths must sum to the target"):
        value_spectrum(form, x, target=1)


def test_a_branch_that_passes_no_gradient_is_no_error():
    """Fewer live degrees than lengths with paths: the second point finds the lengths right."""

    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x.detach())

    network = lively(Chain(Residual(mlp(3)), Residual(Rounded()), Residual(mlp(3))))
    x = normal(2, 3)
    found = gradient_spectrum(trace(network, x), x, target=1)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    assert error(found.total(), wanted) < 1e-10


def test_a_lost_constant_is_seen(monkeypatch):
    from unbraid.form import _linearised

    _, x, form = made(chain(3))
    every = _linearised.constants
    monkeypatch.setattr(_linearised, "constants", lambda *args: list(every(*args))[1:])
    with pytest.raises(InexactError, match="they depart by"):
        value_spectrum(form, x, target=1)


def test_a_gate_left_live_is_seen(monkeypatch):
    """True derivatives in place of held factors: values no longer sum to the target."""
    from unbraid.form import _target_segment

    _, x, form = made(chain(3))
    live = form.values(x, None, (form.output,))

    def left(graph, state, inputs, segments, seen):
        seen(form.output, live[form.output])
        return graph, state

    monkeypatch.setattr(_target_segment, "freeze", left)
    with pytest.raises(InexactError, match="they depart by"):
        value_spectrum(form, x, target=1)
    with pytest.raises(InexactError, match="must sum to the target"):
        all_paths(form, x, target=1)


def test_a_path_left_out_is_seen(monkeypatch):
    from unbraid.paths import _all_paths

    _, x, form = made(chain(3))
    explore = _all_paths._explore
    monkeypatch.setattr(
        _all_paths, "_explore", lambda *args: [tuple(part[:-1] for part in ends) for ends in explore(*args)]
    )
    with pytest.raises(InexactError, match="the 7 paths and the constants must sum to the target"):
        all_paths(form, x, target=1)


def test_lengths_that_count_the_outer_branch_too_are_seen(monkeypatch):
    """Opened, an outer branch adds 0; were it to add 1, brute force says otherwise."""
    network, x, form = made(EVERY[2:3])
    right = gradient_spectrum(form, x, target=1, nested=True)
    expected = brute(network, x, Verbs, nested=True)
    by_length = torch.stack([sum(g for n, g in expected.values() if n == m) for m in range(2)])
    assert error(right.gradients, by_length) < 1e-10
    monkeypatch.setattr(
        Lengths, "opened", staticmethod(lambda adds, parents: Lengths({add.block: (1,) for add in adds}))
    )
    wrong = gradient_spectrum(form, x, target=1, nested=True)
    assert isinstance(wrong, GradientSpectrum)
    assert len(wrong.gradients) == 3
