"""The check of a form: it measures, and what is broken on purpose it sees."""

import copy
import math
import operator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from networks import Chain, Does, Residual, error, lively, mlp, normal, without_backward
from unbraid.capture import _functional
from unbraid.errors import InexactError
from unbraid.form import _additions, _gradient_sources, _gradients, _second_input, _verify, chain, trace
from unbraid.graph import Add
from unbraid.paths import gradient_spectrum
from unbraid.results import relative_error, tolerance
from unbraid.walk import _run

X = normal(3, 6)


@pytest.fixture(scope="module")
def model():
    return lively(Chain(*(Residual(mlp(6)) for _ in range(3)), nn.Linear(6, 2)))


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


def with_add(form, block, **changes):
    """The form with one addition changed in its graph, and nothing said about it."""
    steps = tuple(
        replace(step, **changes) if isinstance(step, Add) and step.block == block else step for step in form.graph.steps
    )
    return replace(form, graph=replace(form.graph, steps=steps))


def test_an_honest_form(form, model):
    checked = form.verify(X)
    assert checked.tolerance == 1e-12
    assert checked.error == max(checked.outputs, checked.other_batch, *checked.additions)
    assert checked.error <= 1e-12
    assert checked.silent == ()
    h = X
    for block, ratio in zip(model.blocks[:3], checked.ratios, strict=True):
        f = block.branch(h)
        assert ratio == pytest.approx((f.abs().max() / h.abs().max()).item(), rel=1e-10)
        h = h + f


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_dropped_branch_is_seen(form, block):
    broken = with_add(form, block, branches=(None,))
    with pytest.raises(InexactError, match=r"must follow the model to 1e-12; it departs at block") as caught:
        broken.verify(X)
    assert caught.value.error > 1e-2
    assert caught.value.where == f"block {block} ('blocks.{block}')"


@pytest.mark.parametrize("change", [lambda y: y.double(), lambda y: y[None]], ids=["type", "sizes"])
def test_outputs_of_equal_numbers_but_other_types_or_sizes_are_seen(model, change):
    form = trace(copy.deepcopy(model).float(), X.float())
    *steps, last = form.graph.steps
    code = last.code
    broken = replace(last, code=lambda *operands: change(code(*operands)))
    with pytest.raises(InexactError, match=r"output 0 is torch.* in the form, and torch\.float32 .* in the model"):
        replace(form, graph=replace(form.graph, steps=(*steps, broken))).verify(X.float())


class Hidden(nn.Module):
    """A choice that no tracer sees, for the numbers leave torch; on one way the output has another form."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(6, 6), change

    def forward(self, x):
        y = x + torch.tanh(self.layer(x))
        return self.change(y) if np.from_dlpack(x.detach()).sum() < 0 else y


@pytest.mark.parametrize("change", [lambda y: y.double(), lambda y: y[:, None], lambda y: (y, y), lambda y: 2 * y])
def test_a_recorded_run_is_refused_where_a_hidden_choice_gives_another_output(change):
    x = normal(3, 6).float()
    x = x * torch.sign(x.sum())
    turned = _second_input.another((x,), {}, more=0)[0][0]
    assert np.from_dlpack(turned).sum() < 0 < np.from_dlpack(x).sum()
    with pytest.raises(InexactError, match=r"in the form, and .* in the model|must follow the model"):
        trace(Hidden(change).eval(), x, tracer="dispatch")


def test_a_dropped_skip_is_seen(form):
    with pytest.raises(InexactError, match=r"it departs at block 1 \('blocks\.1'\)"):
        with_add(form, 1, skip=None).verify(X)


def test_a_wrong_sum_is_seen(form, monkeypatch):
    monkeypatch.setattr(_run, "add", operator.sub)
    with pytest.raises(InexactError, match="it departs at"):
        form.verify(X)


def test_a_wrong_parameter_is_seen(form):
    name = "blocks.1.branch.0.weight"
    broken = replace(form, state={**form.state, name: form.state[name] * (1 + 1e-6)})
    with pytest.raises(InexactError, match="it departs at block 1"):
        broken.verify(X)


def test_a_wrong_head_is_seen_at_the_output(form):
    broken = replace(form, state={**form.state, "blocks.3.bias": form.state["blocks.3.bias"] + 1})
    with pytest.raises(InexactError, match="it departs at the output"):
        broken.verify(X)


def test_an_addition_that_does_not_add_up_is_named(form):
    """Block 1 is told that its branch is block 0's: its own sum departs, and the message names it."""
    operands = list(form.origin.operands)
    operands[1] = (operands[1][0], operands[0][1], *operands[1][2:])
    broken = replace(form, origin=replace(form.origin, operands=tuple(operands)))
    with pytest.raises(InexactError, match=r"departs at block 1 \('blocks\.1'\)") as caught:
        broken.verify(X)
    assert caught.value.where == "block 1 ('blocks.1')"


def test_a_concatenation_that_departs_is_named():
    """Beside a sum, which is looked at where the model makes it."""

    def layers(net, x):
        x = x + net.f(x)
        return net.head(torch.cat([x, net.g(x)], -1))

    form = trace(lively(Does(layers, f=mlp(6), g=mlp(6), head=nn.Linear(12, 3))), X)
    assert [block.join for block in form.blocks] == ["sum", "concatenation"]
    name = next(name for name in form.learned if name.startswith("g"))
    broken = replace(form, state={**form.state, name: form.state[name] + 1})
    with pytest.raises(InexactError, match=r"it departs at block 1 \('g'\)"):
        broken.verify(X)


class Sums(nn.Module):
    """One block, whose sum is written in one way or another."""

    def __init__(self, written):
        super().__init__()
        self.f, self.written = mlp(6), written

    def forward(self, x):
        return self.written(x, self.f(x))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (lambda x, f: x + f, True),
        (lambda x, f: f + x, True),
        (lambda x, f: (x + f) + f.tanh() @ f.new_ones(6, 6), True),
        (lambda x, f: torch.lerp(x, f, 0.3), True),
        (lambda x, f: torch.stack([x, f]).sum(0), False),
    ],
)
def test_a_sum_that_the_graph_shows_needs_no_run(written, plain, monkeypatch):
    form = trace(lively(Sums(written)), X)
    ran = []
    uncut = _additions.uncut
    monkeypatch.setattr(_additions, "uncut", lambda *given: ran.append(given) or uncut(*given))
    checked = form.verify(X)
    assert bool(ran) is not plain
    assert checked.additions == (0.0,) if plain else max(checked.additions) <= 1e-12


def test_the_message_has_the_numbers(form):
    broken = with_add(form, 1, branches=(None,))
    with pytest.raises(InexactError) as caught:
        broken.verify(X)
    honest = broken.origin.model(X)
    assert f"at the given input        {error(broken(X), honest):.2e}" in str(caught.value)


def test_the_tolerance_is_the_callers():
    model = lively(Chain(Residual(mlp(6))), dtype=torch.float32)
    form = trace(model, X.float(), tolerance=1e-3)
    assert form.verify(X.float()).tolerance == 1e-3
    name = "blocks.0.branch.0.weight"
    near = replace(form, state={**form.state, name: form.state[name] * (1 + 1e-5)})
    assert 0 < near.verify(X.float()).error < 1e-3
    with pytest.raises(InexactError, match="to 1e-05"):
        replace(near, tolerance=None, state={**form.state, name: form.state[name] * 1.01}).verify(X.float())


class Counting(nn.Module):
    """A model whose output depends on how often it was called."""

    def __init__(self):
        super().__init__()
        self.f, self.calls = mlp(6), 0

    def forward(self, x):
        self.calls += 1
        return x + self.f(x) * self.calls


def test_a_model_that_changes_by_itself_is_seen():
    with pytest.raises(
        InexactError,
        match=r"Two runs of the model at one input differ by [1-9].*between runs",
    ):
        trace(lively(Counting()), X)


def test_a_size_that_is_built_in_is_named_as_the_cause(form):
    """At the traced sizes all is well, and only the other check departs."""
    checked = replace(form.verify(X), error=1.0, other_batch=1.0)
    said = str(_verify._inexact(form, checked, None))
    assert "at others the model's own code takes another way" in said
    assert "tracer='dispatch' at the sizes you need" in said


def test_zero_branches_are_silent():
    """A check on zeros proves nothing: the untrained block with a zero last layer is listed."""
    model = lively(Chain(*(Residual(mlp(6)) for _ in range(3))))
    for parameter in model.blocks[1].branch[2].parameters():
        nn.init.zeros_(parameter)
    form = trace(model, X)
    assert form.silent == (form.blocks[1],)
    assert str(form).splitlines()[-1].endswith("; silent: blocks.1")
    assert form.to_dict()["silent"] == [1]
    with pytest.raises(InexactError, match=r"The form's gradient must be the model's own to 1e-10; at 'blocks\.1"):
        with_add(form, 1, branches=(None,)).verify(X)  # values do not show it, gradients do


def test_a_branch_below_rounding_is_silent():
    model = lively(Chain(*(Residual(mlp(6)) for _ in range(2))))
    for parameter in model.blocks[0].branch[2].parameters():
        parameter.data.mul_(1e-15)
    assert [b.index for b in trace(model, X).silent] == [0]


def test_one_silent_branch_of_two():
    class Side(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = mlp(6), mlp(6)

        def forward(self, x):
            return x + self.a(x) + self.b(x)

    model = lively(Side())
    for parameter in model.b[2].parameters():
        nn.init.zeros_(parameter)
    assert len(trace(model, X).silent) == 1


class Doubled(torch.autograd.Function):
    """Its backward is not the derivative of its forward."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 5 * g


def hooked(net, x):
    h = net.f(x)
    if h.requires_grad and not torch.compiler.is_exporting():
        h.register_hook(lambda g: 0.5 * g)
    return x + h


@pytest.mark.parametrize("forward", [lambda net, x: x + Doubled.apply(net.f(x)), hooked])
def test_a_gradient_that_no_tracer_sees_is_seen(forward):
    """The model's own autograd is the reference: what the captured graph has lost shows in no value."""
    with pytest.raises(InexactError, match=r"gradient must be the model's own to 1e-10; at 'f\.") as caught:
        trace(lively(Does(forward, f=mlp(6))), X)
    assert caught.value.error > 0.1


@pytest.mark.parametrize(("times", "lost"), [(1.2, False), (3.0, True)])
def test_in_few_digits_a_gradient_may_depart_by_what_rounding_does_to_it(times, lost, monkeypatch):
    """x − 63/64·x: what is left of the gradient is wrong by a tenth, as either side rounds for itself."""
    model = lively(Does(lambda net, x: x + net.f(x), f=nn.Linear(6, 6, bias=False)))
    model.f.weight.data = -63 / 64 * torch.eye(6, dtype=torch.float64)
    of_the_model = _gradients.of_the_model

    def other(*given):
        (values, (of_input, *rest)), leaves = of_the_model(*given)
        return (values, [times * of_input, *rest]), leaves

    monkeypatch.setattr(_gradients, "of_the_model", other)
    if lost:
        with pytest.raises(InexactError, match=r"gradient must be the model's own to 0\.\d+; at 'x'"):
            trace(model.bfloat16(), X.bfloat16())
    else:
        assert trace(model.bfloat16(), X.bfloat16()).verify(X.bfloat16()).gradients > 5e-2


@pytest.mark.parametrize("forward", [lambda net, x: x + Doubled.apply(net.f(x)), hooked])
def test_what_is_lost_shows_in_few_digits_as_well(forward):
    with pytest.raises(InexactError, match=r"gradient must be the model's own to 0\.\d+; at 'f\."):
        trace(lively(Does(forward, f=mlp(6))).bfloat16(), X.bfloat16())


def gated(net, x):
    h = net.a(x)
    h[:, :3] += net.f(h.clone())[:, :3]
    with torch.no_grad():
        gate = torch.sigmoid(net.b(h))
    return h + gate * torch.tanh(net.f(h))


def test_a_region_without_gradients_that_is_forgotten_on_purpose_is_seen(monkeypatch):
    parts = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "f": nn.Linear(6, 6)}
    model = lively(Does(gated, **parts))
    form = trace(model, X)
    assert form.verify(X).gradients <= 1e-12
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    spectrum = gradient_spectrum(form, X, target=0)
    assert spectrum.error <= 1e-12
    assert error(spectrum.total(), expected) <= 1e-12 or form.sources != ("x",)
    monkeypatch.setattr(_functional, "detach_ungraded", lambda flat: None)
    with pytest.raises(InexactError, match=r"gradient must be the model's own to 1e-10; at 'b\."):
        trace(model, X)


def test_the_spectrums_error_is_against_the_model_itself(form, model):
    """A hook on a gradient that comes after the trace: the graph knows nothing of it, the model does."""
    assert gradient_spectrum(form, X, target=0).error <= 1e-12
    handle = model.blocks[2].register_full_backward_hook(lambda module, into, out: (0.5 * into[0],))
    try:
        with pytest.raises(InexactError, match="gradient must be the model's own"):
            gradient_spectrum(form, X, target=0)
    finally:
        handle.remove()


def test_gradients_are_let_go_of_as_they_come(form, monkeypatch):
    of_the_form, handed_back = _gradients.of_the_form, []
    monkeypatch.setattr(
        _gradients, "of_the_form", lambda *given, **more: handed_back.extend(of_the_form(*given, **more))
    )
    assert form.verify(X).gradients <= 1e-12
    assert len(handed_back) == 1 + 3 * 4 + 2  # the input, and the parameters
    assert {gradient.untyped_storage().nbytes() for gradient in handed_back} == {8}


def test_a_model_without_a_backward_is_traced_and_says_so():
    form = trace(lively(Does(without_backward, f=mlp(6))), X)
    checked = form.verify(X)
    assert np.isnan(checked.gradients)
    assert checked.unchecked == "the model's own autograd raises NotImplementedError: this kernel has no backward"


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.f = nn.Embedding(7, 6), mlp(6)

    def forward(self, ids):
        h = self.embed(ids)
        return h + Doubled.apply(self.f(h))


@pytest.mark.parametrize("lost", [False, True])
def test_a_gradient_of_few_rows_is_compared(lost):
    """Of an embedding that says sparse=True; what is lost in it is seen as well."""

    def forward(net, ids):
        h = net.embed(ids)
        return h + net.f(Doubled.apply(h) if lost else h)

    model = lively(Does(forward, embed=nn.Embedding(7, 6, sparse=True), f=mlp(6)))
    ids = torch.arange(4).view(2, 2)
    if lost:
        with pytest.raises(InexactError, match=r"gradient must be the model's own to 1e-10; at 'embed"):
            trace(model, ids)
    else:
        assert trace(model, ids).verify(ids).gradients <= 1e-12


@pytest.mark.parametrize("learns", [True, False])
def test_integers_have_gradients_at_the_parameters(learns):
    """Frozen ones too, and the model's flags stay as they are."""
    model = lively(Words()).requires_grad_(learns)
    with pytest.raises(InexactError, match="gradient must be the model's own"):
        trace(model, torch.arange(6).view(2, 3))
    assert all(p.requires_grad is learns and p.grad is None for p in model.parameters())


def test_a_model_in_another_mode_is_no_reference(form, model):
    """Dropout would make another function of it."""
    model.train()
    try:
        assert np.isnan(_gradients.gradient_error(form, X, None, torch.ones(3, 2, dtype=torch.float64)))
    finally:
        model.eval()


def test_an_edited_form_has_no_model(form):
    with pytest.raises(ValueError, match="this form was edited, so there is no model to check it against"):
        form.without(0).verify(X)


def test_a_plain_chain_is_verified():
    model = lively(Chain(mlp(6), mlp(6), nn.Linear(6, 2)))
    form = chain(model, X, layers=["blocks.0", "blocks.1"])
    assert form.verify(X).error < 1e-12
    with pytest.raises(InexactError):
        with_add(form, 1, branches=(form.adds[0].output,)).verify(X)


def test_the_table_of_tolerances():
    """DESIGN.md, Exactness."""
    types = (torch.float64, torch.float32, torch.bfloat16)
    assert [tolerance("forward", t) for t in types] == [1e-12, 1e-5, 2e-2]
    assert [tolerance("sum", t) for t in types] == [1e-10, 1e-4, 5e-2]


def test_the_measure():
    b = torch.tensor([1.0, -4.0])
    assert relative_error(b + torch.tensor([0.0, 1.0]), b) == 0.25
    assert relative_error(b, torch.zeros(2)) == 4.0
    assert relative_error(torch.zeros(0), torch.zeros(0)) == 0.0
    assert relative_error(torch.tensor([True, False]), torch.tensor([True, True])) == 1.0
    assert relative_error(torch.tensor([3 + 4j]), torch.tensor([0j])) == 5.0


def test_the_measure_is_not_fooled_by_what_is_not_finite():
    inf, nan = float("inf"), float("nan")
    assert relative_error(torch.tensor([1.0, nan]), torch.tensor([1.0, 2.0])) == inf
    assert relative_error(torch.tensor([1.0, inf]), torch.tensor([1.0, -inf])) == inf
    assert relative_error(torch.tensor([1.0, inf, nan]), torch.tensor([2.0, inf, nan])) == 0.5


def test_the_measure_sees_what_a_cosine_hides():
    b = torch.ones(4)
    assert torch.cosine_similarity(5.99 * b, b, dim=0).item() == pytest.approx(1.0)
    assert relative_error(5.99 * b, b) == pytest.approx(4.99)


class Sees(nn.Module):
    """A graph whose first dimension is nodes, as a square matrix of edges goes with it."""

    def __init__(self, scaled):
        super().__init__()
        self.layers, self.scaled = nn.ModuleList(nn.Linear(6, 6) for _ in range(2)), scaled

    def forward(self, x, edges):
        if self.scaled:  # of numbers drawn at random the root would not exist
            degree = edges.sum(1).pow(-0.5)
            edges = degree[:, None] * edges * degree
        for layer in self.layers:
            x = x + torch.tanh(edges @ layer(x))
        return x


class Places(nn.Module):
    """Positions are given once for the whole batch, as FLUX's img_ids are."""

    def __init__(self):
        super().__init__()
        self.read, self.place, self.out = nn.Linear(6, 6), nn.Linear(3, 6), nn.Linear(6, 6)

    def forward(self, x, ids, time):
        angle = torch.sin(self.place(ids))[None] * time[:, None, None]
        for _ in range(2):
            x = x + self.out(torch.tanh(self.read(x) * angle))
        return x


class Rows(nn.Module):
    """Sequences of several lengths, one after the other; the borders must not fall."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x, borders):
        torch._check(bool((borders.diff() >= 0).all())) if not torch.compiler.is_compiling() else None
        h = (x + torch.tanh(self.layer(x))).cumsum(0)
        h = torch.cat([h.new_zeros(1, 6), h])
        return h[borders[1:]] - h[borders[:-1]]


NODES = normal(4, 6), normal(4, 4).abs()
VARYING = {
    "nodes and edges": (
        Sees(False),
        NODES,
        "(x: float64[batch, 6], edges: float64[batch, batch])",
    ),
    "degrees": (Sees(True), NODES, "(x: float64[batch, 6], edges: float64[batch, batch])"),
    "places": (Places(), (normal(2, 5, 6), normal(5, 3), normal(2)), None),
    "borders": (Rows(), (X, torch.tensor([0, 1, 3])), None),
}


@pytest.mark.parametrize("name", VARYING)
def test_sizes_that_vary_together_are_found_out(name):
    """The second check grows what the exporter found to be one size, wherever it stands, and nothing else."""
    model, args, signature = VARYING[name]
    form = trace(lively(model), args)
    checked = form.verify(args)
    assert checked.other_batch < 1e-12
    assert checked.one_batch == ""
    assert signature is None or str(form.signature) == signature


class Fixed(nn.Module):
    """Takes five rows alone, which no exporter can know: the number leaves torch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        if not torch.compiler.is_compiling() and len(np.from_dlpack(x.detach())) != 3:
            raise ValueError("three rows alone")
        return x + torch.tanh(self.layer(x))


def test_a_model_that_takes_no_other_size_is_no_error():
    form = trace(lively(Fixed()), normal(3, 6))
    checked = form.verify(normal(3, 6))
    assert math.isnan(checked.other_batch)
    assert checked.one_batch == "the model itself refuses another input: ValueError: three rows alone"


def test_at_sizes_that_grow_together_a_form_that_departs_is_seen():
    model, args, _ = VARYING["nodes and edges"]
    form = trace(lively(model), args)

    def wrong(value):
        return value if len(value) == 4 else value + 1

    first = next(step for step in form.graph.segments if step.role == "branch")
    code = first.code
    broken = replace(first, code=lambda *operands: wrong(code(*operands)))
    graph = replace(form.graph, steps=tuple(broken if step is first else step for step in form.graph.steps))
    with pytest.raises(InexactError, match=r"at another batch size     [1-9]"):
        replace(form, graph=graph).verify(args)


def test_weights_that_are_not_compared_learn_all_the_same(form, monkeypatch):
    """Where a weight is frozen torch goes another way, in NextViT to a wrong gradient: learn as in the model."""
    seen = []

    def watched(graph, state, inputs):
        seen.append({name for name in form.learned if state[name].requires_grad})
        return run(graph, state, inputs)

    run = _gradient_sources.run
    monkeypatch.setattr(_gradient_sources, "run", watched)
    monkeypatch.setattr(_gradient_sources, "ROOM", 6)  # numbers: one bias
    assert form.verify(X).gradients <= 1e-12
    assert seen == [set(form.learned)]


class Remembers(nn.Module):
    """As timm's tables of biases do: made at the first call, with the history of that call."""

    def __init__(self):
        super().__init__()
        self.f, self.bias, self.cache = mlp(6), nn.Parameter(normal(3, 6)), {}

    def forward(self, x):
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias[[0, 2, 1]]
        return x + self.f(x) * self.cache["bias"]


def test_a_history_of_an_earlier_call_is_named_and_without_it_all_is_well():
    model = lively(Remembers())
    model(normal(3, 6))
    with pytest.raises(InexactError, match=r"keeps 'cache' from an earlier call.*\n.*clear it.*torch\.no_grad"):
        trace(model, normal(3, 6))
    model.cache.clear()
    with torch.no_grad():
        model(normal(3, 6))
    assert len(trace(model, normal(3, 6)).blocks) == 1


def _pulled_back(part, state, gradient):
    """What arrives at a part's input, and its output; what its parameters get is accumulated."""
    read = state.detach().requires_grad_()
    with torch.enable_grad():
        made = part(read)
        made.backward(gradient)
    return read.grad, made.detach()


class Recomputing(torch.autograd.Function):
    """Keeps no activations: a reversible step whose backward pass computes its input anew, as revtorch's does."""

    @staticmethod
    def forward(ctx, x, f, g):
        a, b = x.chunk(2, -1)
        with torch.no_grad():
            a = a + f(b)
            b = b + g(a)
        ctx.parts, ctx.states = (f, g), (a.detach(), b.detach())
        return torch.cat([a, b], -1)

    @staticmethod
    def backward(ctx, gradient):
        (f, g), (a, b) = ctx.parts, ctx.states
        da, db = gradient.chunk(2, -1)
        read, made = _pulled_back(g, a, db)
        da, b = da + read, b - made
        read, _ = _pulled_back(f, b, da)
        return torch.cat([da, db + read], -1), None, None


@pytest.mark.parametrize("accumulated", [False, True])
def test_what_a_backward_pass_accumulates_is_part_of_the_models_gradient(accumulated):
    """revtorch's parameters get their gradients from calls of `backward` inside; trace leaves none with the model."""
    model = lively(
        Does(
            lambda net, x: net.head(Recomputing.apply(Recomputing.apply(x, net.f, net.g), net.f, net.g)),
            f=mlp(3),
            g=mlp(3),
            head=nn.Linear(6, 2),
        )
    )
    if accumulated:
        model(X).sum().backward()
    before = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    form = trace(model, X)
    assert (len(form.blocks), sum(form.path_counts())) == (4, 13)  # two of two steps, and 5 + 8 paths
    assert gradient_spectrum(form, X, target=0).error <= 1e-10
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (before[name] is None)
        assert before[name] is None or torch.equal(parameter.grad, before[name])
