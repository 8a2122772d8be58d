"""What a target may be, everywhere one is taken; and what is said of one that does not fit."""

import pydoc
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import unbraid
from networks import Chain, Residual, error, lively, mlp, normal
from unbraid import paths
from unbraid.errors import TargetError, UnbraidError
from unbraid.terms import Terms

TOKENS = normal(3, 4, 6)
ROWS = normal(3, 6)


@pytest.fixture(scope="module")
def tokens():
    """[batch, positions, classes]."""
    model = lively(Chain(Residual(mlp(6)), Residual(mlp(6)), nn.Linear(6, 5)))
    return model, unbraid.trace(model, TOKENS)


@pytest.fixture(scope="module")
def rows():
    """[batch, classes]."""
    model = lively(Chain(Residual(mlp(6)), Residual(mlp(6)), nn.Linear(6, 5)))
    return model, unbraid.trace(model, ROWS)


FORMS = {
    "class": 2,
    "class from the end": -1,
    "classes": torch.tensor([4, 0, 2]),
    "int32 classes": torch.tensor([4, 0, 2], dtype=torch.int32),
    "one class for all": torch.tensor(3),
    "list of classes": [4, 0, 2],
    "function": lambda output: output[:, 1].square(),
}
PAIRS = {
    "pair": (1, 2),
    "from the end": (-1, -2),
    "position and classes": (3, torch.tensor([4, 0, 2])),
    "positions and class": (torch.tensor([3, 1, 0]), 4),
    "positions and classes": (torch.tensor([3, 1, 0]), torch.tensor([4, 0, 2])),
    "tensors for all": (torch.tensor(3), torch.tensor(2)),
    "list of pairs": [(3, 4), (1, 0), (0, 2)],
    "list of pairs of tensors": [(torch.tensor(3), 4), (1, torch.tensor(0)), (0, 2)],
    "function": lambda output: output[:, 2].logsumexp(-1),
}


def expected(output, target):
    """The target written out, one example after the other."""
    if callable(target) and not isinstance(target, torch.Tensor):
        return target(output)

    def of(part, b):
        return int(part if not isinstance(part, torch.Tensor) or not part.ndim else part[b])

    found = []
    for b, row in enumerate(output):
        one = target[b] if isinstance(target, list) else target
        places = [of(part, b) for part in one] if isinstance(one, tuple) else [of(one, b)]
        found.append(row[tuple(places)])
    return torch.stack(found)


CALLS = {
    "attribute": lambda form, x, target: unbraid.attribute(form, x, target=target).total(),
    "Terms.attribute": lambda form, x, target: unbraid.unravel(form, x).attribute(target).total(),
    "value_spectrum": lambda form, x, target: unbraid.value_spectrum(form, x, target=target).total(),
    "all_paths": lambda form, x, target: summed(unbraid.all_paths(form, x, target=target)),
    "top_paths": lambda form, x, target: summed(unbraid.top_paths(form, x, target=target, k=4)),
    "sample_paths": lambda form, x, target: unbraid.sample_paths(form, x, target=target, per_length=2).target,
    "chosen_paths": lambda form, x, target: paths.chosen_paths(form, x, target=target, masks=EVERY).target,
}
EVERY = torch.tensor([[-1, -1], [0, -1], [-1, 0], [0, 0]])


def summed(found):
    return found.values.sum(0) + found.constants


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FORMS)
def test_targets_of_classes(rows, call, name):
    model, form = rows
    assert error(CALLS[call](form, ROWS, FORMS[name]), expected(model(ROWS), FORMS[name]).detach()) < 1e-10


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", PAIRS)
def test_targets_of_positions_and_classes(tokens, call, name):
    model, form = tokens
    assert error(CALLS[call](form, TOKENS, PAIRS[name]), expected(model(TOKENS), PAIRS[name]).detach()) < 1e-10


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_of_positions_and_classes(tokens, name):
    model, form = tokens
    leaf = TOKENS.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(expected(model(leaf), PAIRS[name]).sum(), leaf)
    assert error(unbraid.gradient_spectrum(form, TOKENS, target=PAIRS[name]).total(), wanted) < 1e-10
    assert unbraid.gradient_parts(form, TOKENS, target=PAIRS[name]).error < 1e-10


WRONG = {
    "one of a pair": ((7,), TOKENS, r"a tuple is a pair \(position, class\); \(7,\) came, a tuple of 1"),
    "three": ((1, 2, 3), TOKENS, r"\(1, 2, 3\) came, a tuple of 3"),
    "a class alone": (1, TOKENS, r"a class index needs an output \[batch, classes\], and this one is \[3, 4, 5\]"),
    "a pair too many": ((1, 1), ROWS, r"a pair \(position, class\) needs .* and this one is \[3, 5\]"),
    "classes out of range": ((1, torch.tensor([0, 5, 1])), TOKENS, r"class \[0, 5, 1\] must lie within 4 positions"),
    "positions out of range": ((torch.tensor([0, -5, 1]), 1), TOKENS, r"position \[0, -5, 1\] and class 1"),
    "another batch in a pair": ((1, torch.tensor([0, 1])), TOKENS, r"the class of a pair .* a tensor \[2\] came"),
    "another batch of positions": ((torch.zeros(4).long(), 1), TOKENS, r"the position of a pair .* a tensor \[4\]"),
    "another batch": (torch.tensor([0, 1]), ROWS, r"one int or a tensor \[3\] with values below 5; \[0, 1\] came"),
    "a column": (torch.tensor([[0], [1], [2]]), ROWS, r"a tensor \[3\] with values below 5; \[\[0\], \[1\], \[2\]\]"),
    "out of range": (5, ROWS, r"with values below 5; 5 came"),
    "negative": (-6, ROWS, r"with values below 5; -6 came"),
    "bool": (True, ROWS, r"an index is a whole number; True came"),
    "a mask": (torch.tensor([True, False, True]), ROWS, r"a tensor \[3\] of bool came"),
    "floats": (torch.tensor([0.0, 1.0, 2.0]), ROWS, r"a tensor \[3\] of float32 came"),
    "a float": (1.0, ROWS, r"an index is a whole number; 1\.0 came"),
    "a float in a pair": ((1, 2.0), TOKENS, r"an index is a whole number; 2\.0 came"),
    "nothing": (None, ROWS, r"an index is a whole number; None came"),
    "text": ("cat", ROWS, r"an index is a whole number; 'cat' came"),
    "a short list": ([1, 2], ROWS, r"one for each of the 3 examples; it has 2"),
    "a list of lists": ([[1, 2], [0, 1], [0, 0]], TOKENS, r"it holds a list of 2"),
    "a list of functions": ([len, len, len], ROWS, r"a list holds a class, or a pair"),
    "a scalar": (lambda y: y.sum(), ROWS, r"a tensor \[3\]; it gave \[\] for an output \[3, 5\]"),
    "one row": (lambda y: y[0], ROWS, r"a tensor \[3\]; it gave \[5\] for an output"),
    "no reduction": (lambda y: y, ROWS, r"it gave \[3, 5\] for an output"),
    "a number": (lambda y: float(y.sum()), ROWS, r"a tensor \[3\]; it gave a float"),
    "a tuple": (lambda y: (y[:, 0],), ROWS, r"it gave a tuple of 1"),
    "whole numbers": (lambda y: y.argmax(-1), ROWS, r"floating-point numbers, .* it gave int64"),
    "constant": (lambda y: torch.zeros(3), ROWS, r"a differentiable function of the output, and this one is constant"),
    "detached": (lambda y: y.detach()[:, 0], ROWS, r"this one is constant"),
    "a fault in it": (lambda y: y.logits, ROWS, r"raised AttributeError.*\n.*what the model returns, here a tensor"),
}


@pytest.mark.parametrize("call", [*CALLS, "gradient_spectrum", "gradient_parts"])
def test_a_target_that_does_not_fit_is_told_alike_everywhere(rows, tokens, call):
    """One error of ours for each, whichever analysis it is given to, with what arrived."""
    calls = {
        **CALLS,
        "gradient_spectrum": lambda form, x, target: unbraid.gradient_spectrum(form, x, target=target),
        "gradient_parts": lambda form, x, target: unbraid.gradient_parts(form, x, target=target),
    }
    for target, x, message in WRONG.values():
        form = (tokens if x is TOKENS else rows)[1]
        with pytest.raises(TargetError, match=message) as caught:
            calls[call](form, x, target)
        assert isinstance(caught.value, UnbraidError)
        assert isinstance(caught.value, ValueError)


@dataclass
class Said:
    """A model's own class of outputs."""

    pooled: torch.Tensor
    scores: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    kind: torch.Tensor


pytree.register_dataclass(Said)


@dataclass
class Unregistered:
    """The same, of which torch knows nothing."""

    pooled: torch.Tensor
    scores: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    kind: torch.Tensor


class Says(nn.Module):
    """Several outputs in one of several wrappings."""

    def __init__(self, wrapping):
        super().__init__()
        self.body = Chain(Residual(mlp(6)), Residual(mlp(6)))
        self.pool, self.head = nn.Linear(6, 2), nn.Linear(6, 5)
        self.wrapping = wrapping

    def forward(self, x):
        first = self.body.blocks[0](x)
        h = self.body.blocks[1](first)
        scores = self.head(h)
        return self.wrapping(self.pool(h).tanh(), scores, (x, first, h), scores.argmax(-1))


WRAPPINGS = {
    "dataclass": (Said, lambda r: (r.pooled, r.scores), "scores"),
    "a dataclass that nobody registered": (Unregistered, lambda r: (r.pooled, r.scores), "scores"),
    "dict": (
        lambda *parts: dict(zip(("pooled", "scores", "hidden", "kind"), parts, strict=True)),
        lambda r: (r["pooled"], r["scores"]),
        "scores",
    ),
    "tuple": (lambda *parts: parts, lambda r: (r[0], r[1]), 1),
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_function_and_a_metric_receive_what_the_model_returns(name):
    wrapping, parts, _ = WRAPPINGS[name]
    model = lively(Says(wrapping))
    form = unbraid.trace(model, ROWS)
    kinds = []

    def both(returned):
        """Of two outputs at once: the gradient is that of both."""
        kinds.append(type(returned))
        pooled, scores = parts(returned)
        return pooled[:, 0] * scores[:, 3] + scores.logsumexp(-1)

    leaf = ROWS.clone().requires_grad_()
    wanted = both(model(leaf))
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    spectrum = unbraid.gradient_spectrum(form, ROWS, target=both)
    assert error(spectrum.total(), gradient) < 1e-10
    assert spectrum.counts == (1, 2, 1)
    for call in CALLS:
        assert error(CALLS[call](form, ROWS, both), wanted.detach()) < 1e-10
    batches = [(ROWS, torch.arange(3))]
    unbraid.lesion(form, batches, lambda returned, labels: both(returned).mean())
    mean = unbraid.mean_spectrum(form, batches, loss=lambda returned, labels: both(returned))
    assert abs(mean.loss - wanted.mean().item()) < 1e-12
    unbraid.signal(form, batches, loss=lambda returned, labels: both(returned))
    assert set(kinds) == {type(model(ROWS))}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_the_first_float_tensor_is_explained_or_another_by_name(name):
    wrapping, parts, scores = WRAPPINGS[name]
    model = lively(Says(wrapping))
    form = unbraid.trace(model, ROWS)
    for output, place in ((None, 0), (scores, 1)):
        wanted = parts(model(ROWS))[place].detach()[:, 1]
        assert error(unbraid.attribute(form, ROWS, target=1, output=output).total(), wanted) < 1e-10
        assert error(unbraid.unravel(form, ROWS).attribute(1, output=output).total(), wanted) < 1e-10
        assert error(unbraid.value_spectrum(form, ROWS, target=1, output=output).total(), wanted) < 1e-10
        leaf = ROWS.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(parts(model(leaf))[place][:, 1].sum(), leaf)
        assert error(unbraid.gradient_spectrum(form, ROWS, target=1, output=output).total(), gradient) < 1e-10


def test_an_output_inside_the_trunk_has_the_paths_that_lead_there():
    model = lively(Says(Said))
    form = unbraid.trace(model, ROWS)
    found = unbraid.all_paths(form, ROWS, target=4, output="hidden.1")
    assert len(found) == 2
    assert error(summed(found), model(ROWS).hidden[1].detach()[:, 4]) < 1e-10
    spectrum = unbraid.gradient_spectrum(form, ROWS, target=lambda said: said.hidden[1][:, 4])
    assert spectrum.counts == (1, 1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("logits", r"'logits' is none of this model's; there is 'pooled', 'scores', 'hidden\.0'"),
        ("kind", r"'kind' carries no data from the inputs; there is 'pooled'"),
        (7, r"7 is none of this model's"),
    ],
)
def test_an_output_that_is_not_there(output, message):
    form = unbraid.trace(lively(Says(Said)), ROWS)
    with pytest.raises(TargetError, match=message):
        unbraid.attribute(form, ROWS, target=1, output=output)


def test_help_tells_the_forms():
    for call in (Terms.attribute, unbraid.attribute, unbraid.all_paths, unbraid.value_spectrum, unbraid.top_paths):
        text = " ".join(pydoc.render_doc(call, renderer=pydoc.plaintext).split())
        assert "a pair (position, class), each an int or a tensor [batch]" in text
        assert "a list of these, one for each example" in text
        assert "a function of what the model returns that gives a tensor [batch]" in text


class Trains(nn.Module):
    """A loss is returned beside the scores, before them, as transformers does; no rule makes it affine."""

    def __init__(self):
        super().__init__()
        self.body, self.head = Chain(Residual(mlp(6)), Residual(mlp(6))), nn.Linear(6, 5)

    def forward(self, x, labels):
        scores = self.head(self.body(x))
        return {"loss": nn.functional.cross_entropy(scores, labels), "scores": scores}


def test_a_loss_beside_the_scores_needs_no_rule():
    model, args = lively(Trains()), (ROWS, torch.arange(3))
    form = unbraid.trace(model, args)
    wanted = model(*args)["scores"][:, 1].detach()
    for call in (unbraid.value_spectrum, unbraid.attribute, unbraid.all_paths):
        found = call(form, args, target=1, output="scores")
        assert error(found.target, wanted) < 1e-12
        found = call(form, args, target=lambda returned: returned["scores"][:, 1])
        assert error(found.target, wanted) < 1e-12
        with pytest.raises(TargetError, match=r"this one is \[\].*\n.*output= names another: 'scores'\."):
            call(form, args, target=1)
