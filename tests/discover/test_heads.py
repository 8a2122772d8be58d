"""Attention branches split by head, against the projection's own slices taken by hooks."""

import pytest
import torch
from torch import nn

from networks import error, lively, normal
from real_models import real
from unbraid import attribute, load, trace, unravel
from unbraid.paths import (
    all_paths,
    chosen_paths,
    gradient_spectrum,
    mean_spectrum,
    sample_paths,
    top_paths,
    value_spectrum,
)
from unbraid.terms._route import taken_by

pytestmark = pytest.mark.filterwarnings("ignore")

BY_PATHS = [gradient_spectrum, value_spectrum, mean_spectrum, all_paths, top_paths, sample_paths, chosen_paths]
ATTENTION = ["GPT2", "Llama", "Bloom", "vit_tiny_patch16_224"]


def entering(module, model, args, kwargs):
    """What enters a module in a run of the model."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        model(*args, **kwargs)
    handle.remove()
    return seen[0]


def test_heads_of_gpt2_are_slices_of_its_projection():
    """W_i o_i, with W the rows of `c_proj` that read head i; the bias is the constant."""
    model, args, kwargs, form, _ = real("GPT2")
    terms = unravel(form, args, kwargs, by="head")
    assert terms.error < 1e-12
    for layer, block in enumerate(model.transformer.h):
        projection = block.attn.c_proj
        merged = entering(projection, model, args, kwargs)
        for head in range(2):
            rows = slice(8 * head, 8 * head + 8)
            name = f"transformer.h.{layer}.attn head {head}"
            found = terms.values[terms.names.index(name)]
            assert error(found, merged[..., rows] @ projection.weight[rows]) < 1e-12
        constant = terms.values[terms.names.index(f"transformer.h.{layer}.attn constant")]
        assert error(constant, projection.bias.expand_as(constant)) < 1e-12


def test_heads_of_a_vision_transformer_are_slices_of_its_projection():
    model, args, kwargs, form, _ = real("vit_tiny_patch16_224")
    terms = unravel(form, args, kwargs, by="head")
    projection = model.blocks[1].attn.proj
    merged = entering(projection, model, args, kwargs)
    for head in range(2):
        columns = slice(12 * head, 12 * head + 12)
        found = terms.values[terms.names.index(f"blocks.1.attn head {head}")]
        assert error(found, merged[..., columns] @ projection.weight[:, columns].T) < 1e-12


@pytest.mark.parametrize("name", ATTENTION)
def test_heads_sum_to_the_block(name):
    _, args, kwargs, form, target = real(name)
    terms, heads = unravel(form, args, kwargs), unravel(form, args, kwargs, by="head")
    for block in form.blocks:
        whole = terms.values[terms.names.index(block.name)]
        parts = [heads.values[k] for k in range(len(heads)) if heads[k].block == block.index]
        assert error(sum(parts), whole) < 1e-10
    assert error(heads.total(), terms.total()) < 1e-12
    contributions = attribute(form, args, kwargs, target=target, by="head")
    assert contributions.names == heads.names
    assert contributions.error < 1e-10


@pytest.mark.parametrize("name", ATTENTION)
def test_spectra_by_head_keep_their_sum(name):
    """One branch of a block a path: heads are routes side by side, so lengths and the sum by length stay."""
    _, args, kwargs, form, target = real(name)
    whole, heads = (gradient_spectrum(form.split(s), args, kwargs, target=target) for s in (None, "heads"))
    assert error(heads.gradients, whole.gradients) < 1e-10
    assert heads.counts == tuple(form.split("heads").path_counts())
    assert sum(heads.counts) > sum(whole.counts)
    values, by_head = (value_spectrum(form.split(s), args, kwargs, target=target) for s in (None, "heads"))
    assert error(by_head.from_input, values.from_input) < 1e-10
    assert error(by_head.from_constants, values.from_constants) < 1e-10


@pytest.mark.parametrize("linearize", ["frozen", "jacobian"])
def test_paths_by_head_gather_into_those_by_branch(linearize):
    _, args, kwargs, form, target = real("GPT2")
    whole = all_paths(form, args, kwargs, target=target, linearize=linearize)
    heads = all_paths(form.split("heads"), args, kwargs, target=target, linearize=linearize)
    assert len(heads) == 3 * 2 * 3 * 2  # skip or one of two heads, skip or MLP, twice
    passed = heads.masks.clamp(max=0)
    for mask, value in zip(whole.masks, whole.values, strict=True):
        same = (passed == mask).all(1)
        assert error(heads.values[same].sum(0), value) < 1e-10
    best = top_paths(form.split("heads"), args, kwargs, target=target, linearize=linearize, k=3)
    assert best.values.abs().mean(1).tolist() == heads.values.abs().mean(1).topk(3).values.tolist()


def test_sampled_paths_pass_single_heads():
    _, args, kwargs, form, target = real("GPT2")
    drawn = sample_paths(form.split("heads"), args, kwargs, target=target, per_length=4)
    every = all_paths(form.split("heads"), args, kwargs, target=target, linearize="jacobian")
    known = {tuple(mask): norm for mask, norm in zip(every.masks.tolist(), every.norms.tolist(), strict=True)}
    assert {1} <= {choice for mask in drawn.masks.tolist() for choice in mask}
    for mask, norm in zip(drawn.masks.tolist(), drawn.norms.tolist(), strict=True):
        assert norm == pytest.approx(known[tuple(mask)], rel=1e-10)


def test_mean_spectra_by_head():
    _, args, _, form, _ = real("vit_tiny_patch16_224")
    batches = [(args[0], torch.tensor([0, 1]))]
    assert mean_spectrum(form.split("heads"), batches).counts == tuple(form.split("heads").path_counts())


def test_a_head_is_a_term_to_call():
    _, args, kwargs, form, _ = real("GPT2")
    terms = unravel(form, args, kwargs, by="head")
    k = terms.names.index("transformer.h.1.attn head 1")
    assert (terms[k].block, terms[k].branch, terms[k].substituted) == (2, 1, True)
    assert error(terms[k](*args, **kwargs), terms.values[k]) < 1e-12
    inner = terms[k].unravel()
    assert "transformer.h.0.attn head 0" in inner.names


def test_a_head_deleted_is_a_head_less():
    """`without` takes a head as it takes any branch; the oracle is the projection with that head's rows at zero."""
    model, args, kwargs, form, _ = real("GPT2")
    projection = model.transformer.h[1].attn.c_proj
    kept = projection.weight.detach().clone()
    try:
        with torch.no_grad():
            projection.weight[8:16] = 0
            wanted = model(*args, **kwargs).logits
    finally:
        with torch.no_grad():
            projection.weight.copy_(kept)
    assert error(form.split("heads").without((2, 1))(*args, **kwargs).logits, wanted) < 1e-12


def test_a_split_form_is_verified_saved_and_loaded(tmp_path):
    _, args, kwargs, form, _ = real("GPT2")
    split = form.split("heads")
    assert split.verify(args, kwargs).error < 1e-12
    assert split.split("heads") is split
    assert form.split(None) is form
    loaded = load(split.save(tmp_path / "form"))
    assert [block.branches for block in loaded.blocks] == [block.branches for block in split.blocks]
    assert error(loaded(*args, **kwargs)["logits"], split(*args, **kwargs).logits) < 1e-12


class Normed(nn.Module):
    """Attention whose result is normed before it joins the trunk: no sum over heads any more."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)

    def forward(self, h):
        return h + self.norm(self.attention(h, h, h, need_weights=False)[0])


class Beside(nn.Module):
    """Attention written with matrix products, next to an MLP, a block of two branches."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6, bias=False)

    def forward(self, h):
        q, k, v = self.qkv(h).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT).softmax(-1) @ v
        return h + self.mlp(h) + 0.5 * self.out(mixed.transpose(1, 2).flatten(2))


def test_heads_in_a_parallel_block_written_with_products():
    model, x = lively(Beside()), normal(3, 4, 6)
    split = trace(model, x).split("heads")
    (block,) = split.blocks
    assert [name.split(" ")[-1] for name in block.branches] == ["mlp", "0", "1"]
    assert error(split(x), model(x)) < 1e-12
    target = (1, 2)
    found = gradient_spectrum(split, x, target=target)
    assert found.counts == (1, 3)
    assert found.error < 1e-12


def test_what_has_no_heads_says_why():
    x = normal(2, 4, 6)
    with pytest.raises(ValueError, match=r"no branch of this graph shows attention heads: layer_norm comes after"):
        trace(lively(Normed()), x).split("heads")
    _, args, kwargs, form, _ = real("resnet18")
    with pytest.raises(ValueError, match=r"split: no branch of this graph shows attention heads"):
        unravel(form, args, kwargs, by="head")
    gpt2 = real("GPT2")[3]
    with pytest.raises(ValueError, match="split first and delete then"):
        gpt2.without(0).split("heads")


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        *[(call, 'give form.split("heads") instead of the form') for call in BY_PATHS],
        *[(call, 'give by="head"') for call in (unravel, attribute)],
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_split_is_told_what_to_give_instead(call, instead):
    with pytest.raises(TypeError) as caught:
        call(real("GPT2")[3], (), split="heads")
    assert str(caught.value) == f"{call.__name__}: split= is gone; {instead}."


def test_branches_side_by_side_are_terms_by_branch():
    """Each term is what the branch's last module gives, and the two of a block sum to the block's term."""

    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return x + self.a(x).relu() + self.b(x).tanh()

    network, x = lively(nn.Sequential(Parallel(), Parallel(), nn.Linear(5, 3))), normal(2, 5)
    form = trace(network, x)
    whole, parts = unravel(form, x), unravel(form, x, by="branch")
    assert len(whole) == 3
    assert parts.names == ("input", *(name for block in form.blocks for name in block.branches))
    first, second, _ = network
    h = first(x)
    wanted = [first.a(x).relu(), first.b(x).tanh(), second.a(h).relu(), second.b(h).tanh()]
    for value, expected in zip(parts.values[1:], wanted, strict=True):
        assert error(value, expected.detach()) < 1e-12
    streamed = attribute(form, x, target=1, by="branch")
    assert streamed.names == parts.names
    assert error(streamed.values, parts.attribute(1).values) < 1e-12
    assert error(streamed.values[1:3].sum(0), attribute(form, x, target=1).values[1]) < 1e-12
    with pytest.raises(ValueError, match=r'unravel: by is "block", "branch" or "head"; \'heads\' came'):
        taken_by(form, "heads", "unravel")  # the hook that checks types in the tests refuses it sooner elsewhere


class EndsIn(nn.Module):
    """Attention of two heads without biases, after whose projection something affine is done."""

    def __init__(self, end) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)
        self.end = end

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.end(self.out(mixed))


@pytest.mark.parametrize(
    ("end", "parts"),
    [
        (lambda y: 1 - y, 3),
        (lambda y: torch.where(torch.eye(8)[:5] > 0, y, 2.0), 3),
        (lambda y: nn.functional.pad(y[:, 1:], (0, 0, 1, 0), value=3.0), 3),
        (lambda y: y + 1, 3),
        (lambda y: 2 * y, 2),
    ],
    ids=["1 - y", "where", "pad", "y + 1", "2 y"],
)
def test_what_the_end_adds_belongs_to_no_head(end, parts):
    """Added by each head it would be added twice."""
    x = normal(2, 5, 8)
    model = nn.Sequential(EndsIn(end), nn.Linear(8, 3)).to(torch.float64).eval()
    split = trace(model, x).split("heads")
    assert [len(block.branches) for block in split.blocks] == [parts]
    assert error(split(x), model(x)) < 1e-12
