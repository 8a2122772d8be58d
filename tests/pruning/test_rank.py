"""Ranks against numbers taken from the untouched model by hooks, by autograd on a scale, and by networks rebuilt."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import unbraid
import unbraid.nn as unn
from book_networks import Reader, batch, features
from networks import Chain, Does, Residual, lively, mlp, normal
from pruning._models import made
from unbraid.pruning import angular_distance, layers, rank
from unbraid.pruning._stream_readings import cosine

F64 = torch.float64


def cos(a, b):
    """Written out once more: the library's own measure is not its own judge."""
    return (a * b).sum(-1) / (a.square().sum(-1).sqrt() * b.square().sum(-1).sqrt())


def seen(model, names, inputs):
    """What some modules took and gave, for each batch."""
    found = {name: [] for name in names}

    def note(name):
        # Copies: what comes next may write in place.
        return lambda module, args, output: found[name].append(
            (args[0].clone() if args else None, (output if isinstance(output, torch.Tensor) else output[0]).clone())
        )

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    with torch.no_grad():
        for one in inputs:
            model(**one) if isinstance(one, dict) else model(one)
    for handle in handles:
        handle.remove()
    return found


def texts():
    """Two batches of unequal size and length."""
    g = torch.Generator().manual_seed(3)
    return [{"input_ids": torch.randint(3, 30, size, generator=g), "use_cache": False} for size in ((2, 6), (1, 4))]


def test_influence_of_layers_is_shortgpts():
    """Block influence of Men et al. (2024), from the layers' inputs and outputs as hooks see them, over all tokens."""
    model, _, _, form = made("Llama")
    names = [f"model.layers.{k}" for k in range(4)]
    found = seen(model, names, texts())
    wanted = [1 - torch.cat([cos(a, b).flatten() for a, b in found[name]]).mean().item() for name in names]
    ranking = rank(form, [(one, None) for one in texts()], groups=layers(model, form))
    assert ranking.groups == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert ranking.scores.tolist() == pytest.approx(wanted, abs=1e-12)
    assert ranking.order == tuple(sorted(range(4), key=wanted.__getitem__))
    assert ranking.least(2) == tuple(block for k in ranking.order[:2] for block in (2 * k, 2 * k + 1))
    assert ranking.examples == 3
    assert math.isnan(ranking.whole)
    assert ranking.parameters == tuple(sum(p.numel() for p in model.get_submodule(name).parameters()) for name in names)


def test_influence_of_single_blocks_and_of_images():
    model, args, _, form = made("resnet18")
    found = seen(model, ["layer1.1", "layer1.1.bn2"], [args[0]])
    ((h, _),) = found["layer1.1"]
    ((_, f),) = found["layer1.1.bn2"]
    wanted = 1 - cos(h.flatten(1), (h + f).flatten(1)).mean().item()
    ranking = rank(form, [(args, None)])
    assert ranking.scores[1].item() == pytest.approx(wanted, abs=1e-12)
    # Where the shape changes, what is compared is what the projection hands on with and without the branch.
    found = seen(model, ["layer2.0.downsample", "layer2.0.bn2"], [args[0]])
    ((_, skip),), ((_, f),) = found["layer2.0.downsample"], found["layer2.0.bn2"]
    assert ranking.scores[2].item() == pytest.approx(
        1 - cos(skip.flatten(1), (skip + f).flatten(1)).mean().item(), abs=1e-12
    )


def test_one_of_two_parallel_branches():
    model, _, kwargs, form = made("GPTJ")
    names = ["transformer.h.1", "transformer.h.1.attn", "transformer.h.1.mlp"]
    found = seen(model, names, [kwargs])
    ((h, out),), ((_, attention),), ((_, feed),) = (found[name] for name in names)
    ranking = rank(form, [(kwargs, None)], groups=[[(1, 0)], [(1, 1)], [1]])
    wanted = [1 - cos(before, out).mean().item() for before in (h + feed, h + attention, h)]
    assert ranking.scores.tolist() == pytest.approx(wanted, abs=1e-12)
    assert ranking.names == ("transformer.h.1.attn", "transformer.h.1.mlp", "transformer.h.1")


def test_over_the_whole_example():
    model = lively(Reader())
    x = normal(3, 5, 6)
    form = unbraid.trace(model, x)
    with torch.no_grad():
        h = model.blocks[0](x)
    ranking = rank(form, [(x, None)], over="example")
    assert ranking.scores[0].item() == pytest.approx(1 - cos(x.flatten(1), h.flatten(1)).mean().item(), abs=1e-12)
    each = rank(form, [(x, None)])
    assert each.scores[0].item() == pytest.approx(1 - cos(x, h).mean().item(), abs=1e-12)


def labelled(model, sizes=(3, 2)):
    g = torch.Generator().manual_seed(0)
    return [(batch(model, seed=k)[:n], torch.randint(4, (n,), generator=g)) for k, n in enumerate(sizes)]


def mean(values, batches):
    """Over examples, not over batches."""
    sizes = [len(labels) for _, labels in batches]
    return sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)


class Scaled(nn.Module):
    """The network with α_k times each branch."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.alpha = nn.Parameter(torch.ones(len(network.blocks), dtype=F64))

    def forward(self, x):
        h = self.network.stem(x)
        for block, alpha in zip(self.network.blocks, self.alpha, strict=True):
            h = block.after(block.skip(h) + alpha * block.scale(block.branch(h)))
        return self.network.head(h)


@pytest.mark.parametrize("order", ["act linear +", "linear norm act linear + norm act"])
def test_gradient_is_the_derivative_by_a_scale_of_the_branch(order):
    model = features(order=order, norm="batch")
    batches = labelled(model)
    scaled = Scaled(model)
    losses = [cross_entropy(scaled(x), y) for x, y in batches]
    slopes = [torch.autograd.grad(loss, scaled.alpha)[0] for loss in losses]
    wanted = mean(slopes, batches).abs()
    ranking = rank(unbraid.trace(model, batches[0][0]), batches, by="gradient", metric=cross_entropy)
    assert ranking.scores.tolist() == pytest.approx(wanted.tolist(), rel=1e-10)
    assert ranking.whole == pytest.approx(mean([loss.item() for loss in losses], batches), rel=1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())
    both = rank(unbraid.trace(model, batches[0][0]), batches, by="gradient", metric=cross_entropy, groups=[[0, 2]])
    assert both.scores.item() == pytest.approx(mean([s[0] + s[2] for s in slopes], batches).abs().item(), rel=1e-10)


def test_gradient_of_frozen_parameters_and_of_a_branch_read_twice():
    """Only the way through the addition counts: the branch's stream is read by the head, too."""

    def forward(self, x):
        f = torch.tanh(self.weight(x))
        return self.head(x + f) * f.sum(-1, keepdim=True)

    model = lively(Does(forward, weight=nn.Linear(6, 6), head=nn.Linear(6, 4))).requires_grad_(False)
    x, y = normal(3, 6), torch.tensor([0, 1, 2])
    alpha = torch.ones((), dtype=F64, requires_grad=True)
    f = torch.tanh(model.weight(x))
    loss = cross_entropy(model.head(x + alpha * f) * f.sum(-1, keepdim=True), y)
    (slope,) = torch.autograd.grad(loss, alpha)
    ranking = rank(unbraid.trace(model, x), [(x, y)], by="gradient", metric=cross_entropy)
    assert ranking.scores.item() == pytest.approx(abs(slope.item()), rel=1e-10)


def test_lesion_is_the_loss_of_a_network_rebuilt_without_the_block():
    model = features()
    batches = labelled(model)
    ranking = rank(unbraid.trace(model, batches[0][0]), batches, by="lesion", metric=cross_entropy)

    def loss(network):
        with torch.no_grad():
            return mean([cross_entropy(network(x), y).item() for x, y in batches], batches)

    for gone in range(3):
        rest = [block for k, block in enumerate(model.blocks) if k != gone]
        smaller = unn.ResidualNetwork(model.stem, rest, model.head)
        assert ranking.scores[gone].item() == pytest.approx(loss(smaller) - loss(model), abs=1e-10)
    assert ranking.whole == pytest.approx(loss(model), rel=1e-10)


@pytest.mark.parametrize("span", [2, 4])
def test_angular_distance_is_gromovs(span):
    """At the last position, between the input of layer l and that of layer l + n."""
    model, _, _, form = made("Llama")
    names = [f"model.layers.{k}" for k in range(4)]
    found = seen(model, names, texts())
    result = angular_distance(form, [(one, None) for one in texts()], span=span)
    n = span // 2
    for start in range(4 - n + 1):
        pairs = zip(found[names[start]], found[names[start + n - 1]], strict=True)
        cosines = torch.cat([cos(a[0][:, -1], b[1][:, -1]) for a, b in pairs])
        wanted = (torch.arccos(cosines) / math.pi).mean().item()
        assert result.distances[2 * start].item() == pytest.approx(wanted, abs=1e-9)
    least = int(result.distances.argmin())
    assert result.best == tuple(range(least, least + span))
    assert len(result.distances) == 8 - span + 1


def test_no_angle_between_two_trunks_or_two_shapes():
    _, _, kwargs, form = made("T5")
    result = angular_distance(form, [(kwargs, None)], span=2)
    # Blocks 0 to 3 are the encoder's, and the decoder has sequences of its own.
    assert math.isnan(result.distances[3].item())
    assert torch.isfinite(result.distances[[0, 1, 2, 4]]).all()
    assert result.to_dict()["distances"][3] is None
    _, args, _, form = made("resnet18")
    found = angular_distance(form, [(args, None)], span=2).distances
    assert torch.isnan(found).tolist() == [False, True, False, True, False, True, False]


def test_cosines_of_zero_vectors():
    a = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    b = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [-5.0, 0.0]])
    assert cosine(a, b).tolist() == [1.0, 0.0, 0.0, -1.0]


def test_a_block_that_does_nothing_ranks_last():
    torch.manual_seed(0)
    model = Chain(*(Residual(mlp(6)) for _ in range(3))).double()
    with torch.no_grad():
        for parameter in model.blocks[1].parameters():
            parameter.zero_()
    x = normal(4, 6)
    form = unbraid.trace(model, x)
    for by in ("influence", "lesion", "gradient"):
        ranking = rank(form, [(x, torch.tensor([0, 1, 2, 3]))], by=by, metric=cross_entropy)
        assert ranking.scores[1].item() == pytest.approx(0.0, abs=1e-12)
        assert ranking.scores[0].item() != pytest.approx(0.0, abs=1e-6)
    assert rank(form, [(x, None)]).order[0] == 1


def test_a_plain_layer_that_changes_the_size_has_no_score():
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 6)).double()
    x = normal(3, 5)
    ranking = rank(unbraid.chain(model, x, layers=["0", "1"]), [(x, None)])
    assert math.isnan(ranking.scores[0].item())
    assert ranking.order == (1, 0)
    assert ranking.to_dict()["scores"][0] is None
    assert ranking.least(1) == (1,)
    with pytest.raises(ValueError, match="1 of 2 have a score; 2 were asked for"):
        ranking.least(2)


def test_without_some_blocks_the_others_are_ranked():
    model = features()
    x = batch(model)
    form = unbraid.trace(model, x)
    rest = rank(form.without(1), [(x, None)])
    assert rest.groups == ((0,), (2,))
    assert rest.scores[0] == rank(form, [(x, None)]).scores[0]


def test_results_show_themselves():
    model = features()
    x = batch(model)
    form = unbraid.trace(model, x)
    ranking = rank(form, [(x, torch.tensor([0, 1, 2]))], by="lesion", metric=cross_entropy)
    assert ranking.table().row_count == 3
    assert ranking.plot().get_suptitle().startswith(f"{ranking.names[ranking.order[0]]} counts least")
    found = angular_distance(form, [(x, None)], span=2)
    assert found.table().row_count == 2
    assert found.to_dict()["best"] == list(found.best)


def test_wrong_input_is_told():
    model = features()
    x = batch(model)
    form = unbraid.trace(model, x)
    data = [(x, torch.tensor([0, 1, 2]))]
    with pytest.raises(ValueError, match=r'by="lesion" needs metric=, a function \(output, labels\) -> scalar'):
        rank(form, data, by="lesion")
    with pytest.raises(ValueError, match="a count of right answers has no gradient"):
        rank(form, data, by="gradient", metric=lambda o, y: (o.argmax(1) == y).double().mean())
    with pytest.raises(ValueError, match=r"a scalar tensor; it gave \[3\]"):
        rank(form, data, by="gradient", metric=lambda o, y: o[:, 0])
    with pytest.raises(ValueError, match=r"takes groups of consecutive blocks of one trunk; \[0, 2\] came"):
        rank(form, data, groups=[[0, 2]])
    with pytest.raises(ValueError, match=r"a group is at least one branch that the form has; \[\] came"):
        rank(form, data, groups=[[]])
    with pytest.raises(IndexError, match="there is no block 9"):
        rank(form, data, groups=[[9]])
    with pytest.raises(ValueError, match="span is 1 to 3, the number of blocks; 4 came"):
        angular_distance(form, data, span=4)
    with pytest.raises(unbraid.DataError, match="there was none"):
        rank(form, [])
