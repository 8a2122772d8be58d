"""The stream before a block, and vectors added to it, against forward hooks on the model."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import unbraid
from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid import DataError, ShapeError, lesion, trace

WIDTH = 6
TOKENS = torch.randint(20, (3, 5), generator=torch.Generator().manual_seed(0))


def attend(self, h):
    q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in self.qkv(self.norm(h)).chunk(3, -1))
    return self.out(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def attention():
    return Does(attend, norm=nn.LayerNorm(WIDTH), qkv=nn.Linear(WIDTH, 3 * WIDTH), out=nn.Linear(WIDTH, WIDTH))


def post_norm(self, h):
    return self.norm(h + self.branch(h))


def projected(self, h):
    return self.skip(h) + self.branch(h)


@pytest.fixture(scope="module")
def model():
    return lively(
        Chain(
            nn.Embedding(20, WIDTH),
            Residual(attention()),
            Does(post_norm, norm=nn.LayerNorm(WIDTH), branch=mlp(WIDTH)),
            Residual(nn.Sequential(nn.Linear(WIDTH, WIDTH), Residual(mlp(WIDTH)), nn.Linear(WIDTH, WIDTH))),
            Does(projected, skip=nn.Linear(WIDTH, 4), branch=mlp(WIDTH, 6, 4)),
            nn.Linear(4, 7),
        )
    )


@pytest.fixture(scope="module")
def form(model):
    return trace(model, TOKENS)


def before(model, place, x, change=lambda h: h):
    """What the module at a place receives, and what the model gives if that is changed, by a hook."""
    seen = []

    def hook(module, args):
        seen.append(args[0])
        return (change(args[0]),)

    handle = model.blocks[place].register_forward_pre_hook(hook)
    with torch.no_grad():
        output = model(x)
    handle.remove()
    return seen[0], output


# The blocks, and the module that receives the stream before each; the head is the last.
PLACES = {0: 1, 1: 2, 2: 3, 3: 4, -1: 4, "blocks.2": 2, "end": 5}


@pytest.mark.parametrize(("block", "place"), PLACES.items(), ids=map(str, PLACES))
def test_the_stream_before_a_block_is_what_a_hook_sees(model, form, block, place):
    assert error(form.stream(block, TOKENS), before(model, place, TOKENS)[0]) < 1e-12
    assert error(form.stream(block, (), {"x": TOKENS[:2]}), before(model, place, TOKENS[:2])[0]) < 1e-12


def test_a_block_itself_and_a_nested_one_are_asked_for(model, form):
    assert torch.equal(form.stream(form.blocks[2], TOKENS), form.stream(2, TOKENS))
    inner = model.blocks[3].branch
    seen = []
    handle = inner[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(TOKENS)
    handle.remove()
    assert error(form.stream(form.blocks[2].nested[0], TOKENS), seen[0]) < 1e-12


def test_unknown_blocks(form):
    for call in (lambda block: form.stream(block, TOKENS), lambda block: form.steered({block: torch.zeros(WIDTH)})):
        with pytest.raises(IndexError, match=r"there is no block 9; blocks are numbered 0 to 4"):
            call(9)
        with pytest.raises(IndexError, match=r"there is no block 'head'"):
            call("head")
    nested = form.blocks[2].nested[0]
    with pytest.raises(IndexError, match=r"stream: block 4 \('.*'\) is gone: nothing reads it without the branches"):
        form.without(2).stream(nested, TOKENS)


VECTORS = {
    "width": normal(WIDTH, seed=5),
    "one number": torch.tensor(0.5, dtype=torch.float64),
    "by position": normal(5, WIDTH, seed=6),
    "one for all": normal(1, 5, 1, seed=7),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_steered_form_is_a_hook_that_adds_the_vector(model, form, block, vector):
    _, expected = before(model, PLACES[block], TOKENS, lambda h: h + vector)
    steered = form.steered({block: vector})
    assert error(steered(TOKENS), expected) < 1e-12
    assert error(expected, model(TOKENS)) > 1e-3
    assert error(steered.stream(block, TOKENS), form.stream(block, TOKENS) + vector) < 1e-12
    assert torch.isnan(torch.tensor(steered.error))


def test_vectors_at_several_blocks_and_twice_add_up(model, form):
    a, b = normal(WIDTH, seed=8), normal(WIDTH, seed=9)
    twice = form.steered({1: a}).steered({"blocks.2": b})
    assert error(twice(TOKENS), before(model, 2, TOKENS, lambda h: h + a + b)[1]) < 1e-12
    end = normal(4, seed=10)
    both = form.steered({0: a, "end": end})
    handle = model.blocks[1].register_forward_pre_hook(lambda module, args: (args[0] + a,))
    expected = before(model, 5, TOKENS, lambda h: h + end)[1]
    handle.remove()
    assert error(both(TOKENS), expected) < 1e-12


def test_the_input_itself_is_steered():
    net = lively(Chain(Residual(mlp(WIDTH)), Residual(mlp(WIDTH))))
    x, vector = normal(3, WIDTH), normal(WIDTH, seed=1)
    steered = trace(net, x).steered({0: vector}).steered({0: vector})
    assert error(steered(x), net(x + 2 * vector)) < 1e-12
    assert error(steered.stream(0, x), x + 2 * vector) < 1e-12
    assert error(unbraid.unravel(steered, x).total(), net(x + 2 * vector)) < 1e-12


def test_edits_and_analyses_follow(model, form):
    """The vector is a constant of the trunk: at the last identity skip its term is the vector."""
    vector = normal(WIDTH, seed=2)
    steered = form.steered({0: vector})
    assert steered.path_counts() == form.path_counts()
    assert [block.name for block in steered.blocks] == [block.name for block in form.blocks]
    with torch.no_grad():
        silent = model.blocks[1].branch.register_forward_hook(lambda module, args, output: output * 0)
        expected = before(model, 1, TOKENS, lambda h: h + vector)[1]
        silent.remove()
    assert error(steered.without(0)(TOKENS), expected) < 1e-12
    assert error(form.without(0).steered({0: vector})(TOKENS), expected) < 1e-12
    assert error(steered.split("heads")(TOKENS), steered(TOKENS)) < 1e-12
    labels = torch.zeros(3, 5, dtype=torch.long)
    study = lesion(steered, [(TOKENS, labels)], lambda output, y: cross_entropy(output.mT, y), sets=[0])
    assert study.metrics[0] == pytest.approx(float(cross_entropy(expected.mT, labels)), rel=1e-10)
    values = unbraid.value_spectrum(steered, TOKENS, target=lambda output: output[:, -1, 0])
    assert values.error < 1e-10
    gradients = unbraid.gradient_spectrum(steered, TOKENS, target=lambda output: output[:, -1, 0])
    assert gradients.error < 1e-10


def test_on_a_trunk_of_identities_the_vector_is_the_constant_term():
    net = lively(Chain(nn.Embedding(20, WIDTH), Residual(mlp(WIDTH)), Residual(mlp(WIDTH))))
    vector = normal(WIDTH, seed=3)
    form = trace(net, TOKENS)
    terms = unbraid.unravel(form.steered({1: vector}), TOKENS)
    assert terms.names == ("input", "blocks.1", "blocks.2", "constants")
    assert error(terms.values[-1], vector.expand(3, 5, WIDTH)) < 1e-12
    assert error(terms.values[:2], unbraid.unravel(form, TOKENS).values[:2]) < 1e-12
    # What is there before the first block is one term, the input's.
    terms = unbraid.unravel(form.steered({0: vector}), TOKENS)
    assert terms.names == ("input", "blocks.1", "blocks.2")
    assert error(terms.values[0], net.blocks[0](TOKENS) + vector) < 1e-12


def test_the_vector_is_copied_and_the_form_untouched(form):
    vector = normal(WIDTH, seed=4)
    steered, plain = form.steered({1: vector}), form(TOKENS)
    there = steered(TOKENS)
    vector.zero_()
    assert torch.equal(steered(TOKENS), there)
    assert torch.equal(form(TOKENS), plain)
    assert torch.equal(form.steered({})(TOKENS), plain)


def test_a_vector_by_position_fixes_their_number(form):
    steered = form.steered({0: VECTORS["by position"]})
    with pytest.raises(ShapeError, match=r"traced  \['batch', 5\]\s+came    \[3, 4\]"):
        steered(TOKENS[:, :4])
    with pytest.raises(ShapeError, match=r"stream  \[batch, 5, 6\]\s+vector  \[4, 6\]"):
        steered.steered({1: normal(4, WIDTH)})


REFUSED = {
    "width": (ShapeError, normal(5), r"the stream before the block, 'blocks.*stream  \[batch, n1, 6\]\s+vector  \[5\]"),
    "batch": (ShapeError, normal(3, 1, WIDTH), r"stream  \[batch, n1, 6\]\s+vector  \[3, 1, 6\]"),
    "rank": (ShapeError, normal(1, 1, 1, WIDTH), r"vector  \[1, 1, 1, 6\]"),
    "complex": (TypeError, torch.zeros(WIDTH, dtype=torch.complex128), r"becomes float64; complex128 came"),
    "meta": (DataError, torch.zeros(WIDTH, device="meta"), r"on the meta device and has no values"),
}


@pytest.mark.parametrize(("kind", "vector", "message"), REFUSED.values(), ids=REFUSED)
def test_vectors_that_do_not_fit(form, kind, vector, message):
    with pytest.raises(kind, match="(?s)" + message.replace("'blocks.*", "'.*")):
        form.steered({1: vector})


def test_what_an_added_vector_rules_out(model, form, tmp_path):
    steered = form.steered({1: torch.ones(WIDTH)})
    with pytest.raises(ValueError, match=r"save: vectors are added .* unbraid.load\(folder\).steered\("):
        steered.save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"with_weights: vectors are added .* Load the weights first"):
        steered.with_weights(tmp_path)
    with pytest.raises(ValueError, match="verify: this form was edited"):
        steered.verify(TOKENS)
    with pytest.raises(ValueError, match="prune: vectors are added to this form"):
        unbraid.prune(model, steered, [0], TOKENS)
    loaded = unbraid.load(form.save(tmp_path / "a")).steered({1: torch.ones(WIDTH)})
    assert torch.equal(loaded(TOKENS), steered(TOKENS))


def test_a_vector_moves_with_the_block_that_hands_the_stream_on():
    net, x, vector = lively(Chain(*(Residual(mlp(WIDTH)) for _ in range(3)))), normal(3, WIDTH), normal(WIDTH, seed=1)
    form = trace(net, x)
    a, b, c = (block.branch for block in net.blocks)
    reordered = form.steered({1: vector}).reorder([1, 0, 2])
    with torch.no_grad():
        h = x + b(x)
        h = h + a(h) + vector
        assert error(reordered(x), h + c(h)) < 1e-12
        h = x + vector + b(x + vector)
        h = h + a(h)
        assert error(form.reorder([1, 0, 2]).steered({1: vector})(x), h + c(h)) < 1e-12


def test_a_circuit_is_made_of_a_steered_form(form):
    """All edges of a steered form are the form; in a circuit every reader has a stream of its own."""
    vector = normal(WIDTH, seed=2)
    steered = form.steered({1: vector})
    study = unbraid.edges(steered, TOKENS, fill="zero", target=lambda output: output[:, -1, 0])
    whole = steered.only(study.circuit(share=1.0), fill="zero")
    assert error(whole(TOKENS), steered(TOKENS)) < 1e-12
    for call in (lambda: whole.steered({0: vector}), lambda: whole.stream(0, TOKENS)):
        with pytest.raises(ValueError, match="this form runs a circuit, in which each reader"):
            call()
