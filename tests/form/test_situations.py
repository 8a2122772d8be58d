"""Situations in which a model is traced or a form looked at: torch's modes, wrappers, tensors without values.

Each works, with the numbers that there are outside, or an error of unbraid's says the cause and the remedy.
"""

import ast
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import unbraid
from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid import gradients
from unbraid.errors import ChanceError, DataError, InexactError, TargetError, TraceError, UnbraidError
from unbraid.form import ResidualForm, load
from unbraid.pruning import angular_distance

X, LABELS = normal(4, 6), torch.tensor([0, 2, 1, 0])
BATCHES = [(X, LABELS), (X.flip(0), LABELS.flip(0))]


def net(*, seed=0):
    return lively(nn.Sequential(Chain(*(Residual(mlp(6)) for _ in range(3))), nn.Linear(6, 3)), seed=seed)


def loss(output, labels):
    return cross_entropy(output, labels)


@pytest.fixture(scope="module")
def model():
    return net()


@pytest.fixture(scope="module")
def form(model):
    return unbraid.trace(model, X)


def plain(numbers):
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")


ANALYSES = {
    "form(x)": lambda model, form: form(X),
    "verify": lambda model, form: torch.tensor(form.verify(X).gradients < 1e-10, device="cpu"),
    "values": lambda model, form: form.values(X, None, (form.end,))[form.end],
    "unravel": lambda model, form: unbraid.unravel(form, X).values,
    "terms.attribute": lambda model, form: unbraid.unravel(form, X).attribute(1).values,
    "terms.lens": lambda model, form: unbraid.unravel(form, X).lens().agreement,
    "term(x)": lambda model, form: unbraid.unravel(form, X)[2](X),
    "attribute": lambda model, form: unbraid.attribute(form, X, target=LABELS).values,
    "gradient_spectrum": lambda model, form: unbraid.gradient_spectrum(form, X, target=1).gradients,
    "at a block": lambda model, form: unbraid.gradient_spectrum(form, X, target=1, at=0).parameter_norms,
    "value_spectrum": lambda model, form: unbraid.value_spectrum(form, X, target=1).from_input,
    "all_paths": lambda model, form: unbraid.all_paths(form, X, target=1).values,
    "jacobian": lambda model, form: unbraid.all_paths(form, X, target=1, linearize="jacobian").values,
    "top_paths": lambda model, form: unbraid.top_paths(form, X, target=1, k=3).values,
    "sample_paths": lambda model, form: unbraid.sample_paths(form, X, target=1, per_length=1).values,
    "gradient_parts": lambda model, form: unbraid.gradient_parts(form, X, target=1).signed,
    "mean_spectrum": lambda model, form: unbraid.mean_spectrum(form, BATCHES).norms,
    "lesion": lambda model, form: plain(unbraid.lesion(form, BATCHES, loss).metrics),
    "resample": lambda model, form: plain(unbraid.lesion(form, BATCHES, loss, replace="resample").metrics),
    "reorderings": lambda model, form: plain(unbraid.reorderings(form, BATCHES, loss, swaps=1, repeats=1).metrics),
    "influence": lambda model, form: unbraid.rank(form, BATCHES).scores,
    "rank by gradient": lambda model, form: unbraid.rank(form, BATCHES, by="gradient", metric=loss).scores,
    "angular_distance": lambda model, form: angular_distance(form, BATCHES, span=1).distances,
    "signal": lambda model, form: unbraid.signal(form, BATCHES).gradient,
    "coherence": lambda model, form: gradients.example_coherence(form, BATCHES).cosine,
    "derivative_chain": lambda model, form: torch.tensor(unbraid.derivative_chain(form, X).error < 1e-10, device="cpu"),
    "without": lambda model, form: form.without(1)(X),
    "prune": lambda model, form: unbraid.prune(model, form, [1], X)(X).detach(),
}


FEW = ("attribute", "gradient_spectrum", "lesion", "rank by gradient")
slow = pytest.mark.slow


@contextmanager
def switched(put, value, before):
    put(value)
    try:
        yield
    finally:
        put(before)


CONTEXTS = {
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "meta": lambda: torch.device("meta"),
    "default meta": lambda: switched(torch.set_default_device, "meta", None),
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
}


class Outside(dict):
    """What each analysis gives where nothing is switched on."""

    def __init__(self, model, form):
        super().__init__()
        self.model, self.form = model, form

    def __missing__(self, name):
        self[name] = ANALYSES[name](self.model, self.form)
        return self[name]


@pytest.fixture(scope="module")
def outside(model, form):
    return Outside(model, form)


def same(found, wanted):
    assert found.device == wanted.device
    return torch.allclose(found.double(), wanted.double(), rtol=1e-9, atol=1e-12, equal_nan=True)


def departing(context, names, model, form, outside):
    wanted = {name: outside[name] for name in names}
    with CONTEXTS[context]():
        found = {name: ANALYSES[name](model, form) for name in names}
    return [name for name in names if not same(found[name], wanted[name])]


@pytest.mark.parametrize("context", ["anomaly", "inference", "meta"])
def test_numbers_inside_are_those_outside(context, model, form, outside):
    """The form was traced outside; the analyses run inside."""
    assert departing(context, FEW, model, form, outside) == []


@slow
@pytest.mark.parametrize("context", CONTEXTS)
def test_numbers_of_every_analysis_inside_are_those_outside(context, model, form, outside):
    assert departing(context, ANALYSES, model, form, outside) == []


INSIDE = [
    pytest.param(
        context, tracer, marks=[] if (context, tracer) in {("inference", "export"), ("meta", "dispatch")} else slow
    )
    for context in CONTEXTS
    for tracer in ("export", "dispatch")
]


@pytest.mark.parametrize(("context", "tracer"), INSIDE)
def test_a_form_traced_inside_is_the_one_traced_outside(context, tracer, model, outside, tmp_path):
    wanted = model(X)
    with CONTEXTS[context]():
        inside = unbraid.trace(model, X, tracer=tracer)
        if tracer == "export":
            inside.save(tmp_path)
            assert load(tmp_path)(X).equal(wanted)
    assert (inside.error, len(inside.blocks)) == (0.0, 3)
    assert not any("gradients were not compared" in note for note in inside.notes)
    for name in ("form(x)", "gradient_spectrum"):
        assert same(ANALYSES[name](model, inside), outside[name])


def test_modes_are_as_they_were(form):
    """Also after an error, and whatever another thread does meanwhile."""
    with torch.autograd.set_detect_anomaly(True, check_nan=False), torch.inference_mode():
        with pytest.raises(TargetError):
            unbraid.gradient_spectrum(form, X, target=17)
        assert torch.is_inference_mode_enabled()
        assert torch.is_anomaly_enabled()
        assert not torch.is_anomaly_check_nan_enabled()
    with torch.autograd.set_detect_anomaly(True):
        threads = [threading.Thread(target=unbraid.gradient_spectrum, args=(form, X), kwargs={"target": 1})] * 1
        threads += [threading.Thread(target=unbraid.unravel, args=(form, X)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.is_anomaly_enabled()
    assert not torch.is_anomaly_enabled()
    with torch.no_grad():
        unbraid.unravel(form, X)
        assert not torch.is_grad_enabled()


def test_gradients_of_nan_are_told_and_raise_nothing_under_anomaly_detection():
    form = unbraid.trace(lively(Chain(Residual(mlp(6)), Does(lambda net, x: x + (net.f(x) * 0).sqrt(), f=mlp(6)))), X)
    with torch.autograd.set_detect_anomaly(True):
        found = unbraid.signal(form, BATCHES, loss=lambda output, labels: output.sum(1))
    assert found.not_finite is not None


def test_a_model_whose_code_makes_tensors_has_values_inside_the_meta_device():
    """Inside, torch itself gives a real model made-up numbers: an index without values picks anything."""

    def forward(net, x):
        return x + net.f(x + net.table(torch.arange(len(x))))

    model = lively(Chain(Does(forward, f=mlp(6), table=nn.Embedding(9, 6)), Residual(mlp(6))))
    wanted = model(X)
    with torch.device("meta"):
        form = unbraid.trace(model, X)
        assert form(X).equal(wanted)
        assert unbraid.gradient_spectrum(form, X, target=1).error < 1e-12
        assert unbraid.trace(model, X, tracer="dispatch")(X).equal(wanted)


def test_a_model_that_was_made_inside_the_meta_device_is_traced_there():
    with torch.device("meta"):
        form = unbraid.trace(net().to("meta"), torch.zeros(4, 6, dtype=torch.float64))
    assert len(form.blocks) == 3
    assert form(X.to("meta")).is_meta


def test_tensors_of_our_own_name_their_device():
    """A default device then means the model's code alone. `nn` builds the user's networks: there it counts."""
    made = """empty empty_strided ones arange eye full linspace logspace rand randn randint randperm zeros asarray
        tensor as_tensor scalar_tensor tril_indices triu_indices""".split()
    root = Path(unbraid.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in made}:
                named = any(keyword.arg == "device" for keyword in node.keywords)
                found += [] if named or path.parent.name == "nn" else [f"{path.relative_to(root)}:{node.lineno}"]
    assert found == []


def test_analyses_under_autocast_are_those_of_the_model_there():
    """Of a form that was traced outside: sums are exact to the type in which it computes."""
    model, x = net().float(), X.float()
    form = unbraid.trace(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert form.precision is torch.bfloat16
        assert form(x).equal(model(x))
        for analysis in (unbraid.value_spectrum, unbraid.all_paths):
            assert 1e-5 < analysis(form, x, target=1).error <= 5e-2
    assert form.precision is torch.float32


# Tensors that were made in inference mode.


def test_a_model_that_was_made_in_inference_mode(outside):
    """It has no gradient; the form, on the same memory, has."""
    with torch.inference_mode():
        model = net()
    form = unbraid.trace(model, X)
    assert "tensors made in torch.inference_mode have no gradient" in str(form)
    held = dict(model.named_parameters())
    assert all(form.state[name].data_ptr() == held[name].data_ptr() for name in form.learned)
    for name in ("form(x)", "gradient_spectrum"):
        assert same(ANALYSES[name](model, form), outside[name])
    assert all(parameter.is_inference() for parameter in model.parameters())


@slow
def test_a_model_that_was_made_in_inference_mode_is_pruned(outside):
    with torch.inference_mode():
        model = net()
    form = unbraid.trace(model, X)
    for name in ("verify", "unravel", "value_spectrum", "rank by gradient"):
        assert same(ANALYSES[name](model, form), outside[name])
    with torch.inference_mode():
        assert error(unbraid.prune(model, form, [1])(X), form.without(1)(X)) == 0


def test_a_buffer_and_an_attribute_that_were_made_in_inference_mode():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.inference_mode():
                self.register_buffer("scale", torch.full((6,), 2.0, dtype=torch.float64))
                self.shift = torch.ones(6, dtype=torch.float64)

        def forward(self, x):
            return x * self.scale + self.shift

    form = unbraid.trace(nn.Sequential(lively(Residual(mlp(6))), Scaled()), X)
    assert form.tracer == "export"
    assert unbraid.gradient_spectrum(form, X, target=1).error < 1e-12


def test_inputs_labels_and_targets_that_were_made_in_inference_mode(model, form, outside):
    with torch.inference_mode():
        x, labels = X.clone(), LABELS.clone()
    assert unbraid.trace(model, x).tracer == "export"
    assert same(unbraid.gradient_spectrum(form, x, target=1).gradients, outside["gradient_spectrum"])
    assert same(unbraid.attribute(form, x, target=labels).values, outside["attribute"])
    batches = [(x, labels), (x.flip(0), labels.flip(0))]
    assert same(unbraid.rank(form, batches, by="gradient", metric=loss).scores, outside["rank by gradient"])
    with torch.inference_mode():
        terms = unbraid.unravel(form, X)
    assert not terms.values.is_inference()
    assert same(terms.attribute(1).values, outside["terms.attribute"])


def test_what_cannot_be_differentiated_inside_a_function_of_the_user_is_told(form):
    with torch.inference_mode():
        weights = torch.ones(3, dtype=torch.float64)
    with pytest.raises(TargetError, match=r"target: the function raised.*Inference tensors cannot.*make a clone"):
        unbraid.gradient_spectrum(form, X, target=lambda output: (output * weights).square().sum(1))
    with pytest.raises(DataError, match=r"rank: .*torch\.inference_mode.*Use its clone"):
        unbraid.rank(form, BATCHES, by="gradient", metric=lambda output, _: (output * weights).square().mean())


# Wrappers, and models that are no Python code or hold no plain tensors.


def compiled(model):
    return torch.compile(model, backend="eager")


@slow
@pytest.mark.parametrize("tracer", ["export", "dispatch"])
@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled])
def test_a_wrapper_is_taken_off_also_for_pruning(wrap, tracer, model, outside):
    wrapped = wrap(model)
    form = unbraid.trace(wrapped, X, tracer=tracer)
    for name in ("verify", "gradient_spectrum", "prune"):
        assert same(ANALYSES[name](wrapped, form), outside[name])


@pytest.mark.parametrize(("wrap", "tracer"), [(nn.DataParallel, "export"), (compiled, "dispatch")])
def test_a_wrapper_is_taken_off(wrap, tracer, model, outside):
    wrapped = wrap(model)
    form = unbraid.trace(wrapped, X, tracer=tracer)
    assert f"{type(wrapped).__name__} was taken off" in str(form)
    assert form.blocks[1].name == "0.blocks.1"
    assert same(form(X), outside["form(x)"])


def test_distributed_data_parallel_is_taken_off(model, tmp_path, outside):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        form = unbraid.trace(nn.parallel.DistributedDataParallel(model), X)
        assert (form.tracer, form.error) == ("export", 0.0)
        assert same(ANALYSES["gradient_spectrum"](model, form), outside["gradient_spectrum"])
    finally:
        torch.distributed.destroy_process_group()


@slow
@pytest.mark.parametrize("tracer", ["export", "dispatch"])
@pytest.mark.parametrize("where", ["inside", "in place"])
def test_a_part_that_is_compiled(where, tracer):
    model = lively(Chain(Residual(mlp(6)), Residual(mlp(6))))
    wanted = model(X).detach()
    if where == "inside":
        model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    else:
        model.blocks[0].compile(backend="eager")
    form = unbraid.trace(model, X, tracer=tracer)
    assert len(form.blocks) == 2
    assert form(X).equal(wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_models_without_python_code_or_plain_weights_are_told(model):
    scripted = r"compiled TorchScript, whose operators no tracer sees: trace the Python module that it was made from"
    whole = torch.jit.script(model)
    inside = Chain(Residual(torch.jit.script(lively(mlp(6)))), Residual(lively(mlp(6))))
    quantised = torch.ao.quantization.quantize_dynamic(net().float(), {nn.Linear}, dtype=torch.qint8)
    lazy = Chain(Residual(nn.Sequential(nn.LazyLinear(6), nn.Tanh())))
    cases = [
        (whole, X, rf"RecursiveScriptModule: it is {scripted}"),
        (torch.jit.trace(model, X), X, rf"TopLevelTracedModule: it is {scripted}"),
        (inside, X, rf"'blocks\.0\.branch': it is {scripted}"),
        (quantised, X.float(), r"quantised weights.*trace the model in floating point, before it is quantised"),
        (lazy, X, r"'blocks\.0\.branch\.0' has parameters without sizes as yet: run the model once"),
    ]
    for stranger, x, said in cases:
        with pytest.raises(TraceError, match=said):
            unbraid.trace(stranger, x, tracer="dispatch" if stranger is quantised else "auto")
    with pytest.raises(TraceError, match=scripted):
        unbraid.chain(whole, X, layers=["0"])


def test_models_and_inputs_without_values_are_told(model, form):
    with pytest.raises(TraceError, match=r"parameters lie on the meta device and have no values: load them"):
        unbraid.trace(net().to("meta"), X)
    with pytest.raises(TraceError, match=r"An input lies on the meta device and has no values: give a real tensor"):
        unbraid.trace(model, X.to("meta"))
    empty = unbraid.trace(model, X, device="meta")
    for name in ("form(x)", "unravel", "gradient_spectrum", "lesion", "influence"):
        with pytest.raises(
            TraceError, match=r"traced on the meta device and has no weights.*form\.with_weights\(FOLDER\)"
        ):
            ANALYSES[name](model, empty)
    for analysis in (lambda x: form(x), lambda x: unbraid.unravel(form, x), lambda x: form.verify(x)):
        with pytest.raises(DataError, match=r"input 'input_?\d*' lies on the meta device and has no values"):
            analysis(X.to("meta"))
    with pytest.raises(DataError, match=r"batch 0 lies on the meta device and has no values"):
        unbraid.lesion(form, [(X.to("meta"), LABELS)], loss)


# torch.add(..., out=)


def outs(make, *, graded=True):
    """Blocks x + f(x) that write their sum into what `make` gives."""

    def forward(net, x):
        y = make(x)
        with torch.set_grad_enabled(graded and torch.is_grad_enabled()):
            torch.add(x, net.f(x), out=y)
        return y

    return lively(Chain(*(Does(forward, f=mlp(6)) for _ in range(2)), nn.Linear(6, 3)))


def unsized(x):
    return torch.empty(0, dtype=x.dtype)


@pytest.mark.parametrize(
    ("make", "tracer", "learns"),
    [
        (torch.empty_like, "export", True),
        (unsized, "export", False),
        (unsized, "dispatch", True),
        pytest.param(unsized, "export", True, marks=slow),
        pytest.param(unsized, "dispatch", False, marks=slow),
        pytest.param(torch.empty_like, "export", False, marks=slow),
        pytest.param(torch.empty_like, "dispatch", True, marks=slow),
        pytest.param(torch.empty_like, "dispatch", False, marks=slow),
    ],
)
def test_a_sum_with_out_is_a_sum(make, tracer, learns):
    """The model itself has no gradient there; that of the form is that of the sum, computed here without it."""
    model = outs(make).requires_grad_(learns)
    plain = Chain(*(Residual(block.f) for block in model.blocks[:2]), model.blocks[2])
    form = unbraid.trace(model, X, tracer=tracer)
    assert (form.tracer, len(form.blocks)) == (tracer, 2)
    assert "out=... arguments don't support automatic differentiation" in str(form)
    assert form(X).equal(plain(X))
    leaf = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(plain(leaf)[:, 1].sum(), leaf)
    assert error(unbraid.gradient_spectrum(form, X, target=1).total(), gradient) < 1e-12
    assert unbraid.value_spectrum(form, X, target=1).error < 1e-12


@pytest.mark.parametrize("tracer", ["export", pytest.param("dispatch", marks=slow)])
def test_what_was_in_a_tensor_before_out_counts_for_nothing(tracer):
    """Memory that nobody has written may hold nan: the gradient ends there, and the value is the sum."""
    model = outs(lambda x: torch.full_like(x, torch.nan), graded=False)
    form = unbraid.trace(model, X, tracer=tracer)
    assert form(X).equal(model(X))
    assert unbraid.value_spectrum(form, X, target=1).error < 1e-12
    assert not unbraid.gradient_spectrum(form, X, target=1).total().any()


def on_a_part(net, x):
    y = torch.empty(len(x), 12, dtype=x.dtype)
    torch.add(x, net.f(x), out=y[:, 3:9])
    return y[:, 3:9]


def of_a_wider_type(net, x):
    y = torch.empty(0, dtype=x.dtype)
    torch.add(x.float(), net.f(x).float(), out=y)
    return y


def of_a_stack(net, x):
    y = torch.empty(0, dtype=x.dtype)
    torch.sum(torch.stack([x, net.f(x)]), 0, out=y)
    return y


def copied_to_a_narrower_type(net, x):
    y = torch.zeros(x.shape, dtype=torch.float32)
    y.copy_(x + net.f(x))
    return y.double()


def on_itself(net, x):
    return torch.add(x, net.f(x), out=x)


@pytest.mark.parametrize(
    ("forward", "tracer"),
    [
        (on_a_part, "export"),
        (copied_to_a_narrower_type, "dispatch"),
        *(
            pytest.param(forward, tracer, marks=slow)
            for forward in (on_a_part, of_a_wider_type, of_a_stack, copied_to_a_narrower_type, on_itself)
            for tracer in ("export", "dispatch")
        ),
    ],
)
def test_other_ways_to_write_a_sum_into_a_tensor(forward, tracer):
    """One block each: what gives the tensor its sizes is no second addition, and a copy has a derivative."""
    model = lively(Chain(*(Does(forward, f=mlp(6)) for _ in range(2)), nn.Linear(6, 3)))
    given = X.clone()
    form = unbraid.trace(model, given, tracer=tracer)
    assert given.equal(X)
    assert (form.tracer, len(form.blocks), form.path_counts()) == (tracer, 2, [1, 2, 1])
    with torch.no_grad():
        assert form(X.clone()).equal(model(X.clone()))
    assert unbraid.gradient_spectrum(form, X.clone(), target=1).error < 1e-10


# A loss beside the scores.


class Judged(nn.Module):
    def __init__(self, put):
        super().__init__()
        self.net, self.put = net(), put

    def forward(self, x, labels):
        scores = self.net(x)
        return self.put(cross_entropy(scores, labels), scores)


@pytest.mark.parametrize(
    ("put", "output"),
    [
        (lambda loss, scores: {"loss": loss, "logits": scores}, "logits"),
        pytest.param(lambda loss, scores: (loss, scores), 1, marks=slow),
        pytest.param(lambda loss, scores: {"out": [scores, {"loss": loss}]}, "out.0", marks=slow),
    ],
    ids=["dict", "tuple", "scores first"],
)
def test_a_loss_that_is_returned_beside_the_scores(put, output, form, outside):
    judged = unbraid.trace(Judged(put).eval(), (X, LABELS))
    args = (X, LABELS)
    assert same(unbraid.unravel(judged, args).values, outside["unravel"])
    assert same(unbraid.unravel(judged, args).attribute(1, output=output).values, outside["terms.attribute"])
    found = unbraid.gradient_spectrum(judged, args, target=1, output=output)
    assert same(found.gradients, outside["gradient_spectrum"])
    assert same(unbraid.value_spectrum(judged, args, target=1, output=output).from_input, outside["value_spectrum"])
    if output != "out.0":
        with pytest.raises(TargetError, match=rf"output= names another: '{output}'"):
            unbraid.gradient_spectrum(judged, args, target=1)


# Dropout in train mode.


def test_dropout_in_train_mode_is_told_with_the_remedy():
    model = Chain(*(Residual(nn.Sequential(mlp(6), nn.Dropout(0.5))) for _ in range(2)), nn.Linear(6, 3)).double()
    form = unbraid.trace(model.train(), X)
    assert unbraid.unravel(form, X).error < 1e-12  # one run
    for analysis in (
        lambda: unbraid.gradient_spectrum(form, X, target=1),
        lambda: unbraid.gradient_parts(form, X, target=1),
        lambda: unbraid.derivative_chain(form, X),
        lambda: gradients.example_coherence(form, BATCHES),
    ):
        with pytest.raises(InexactError, match=r"draws random numbers.*dropout at [^\n]*\n  Trace it in eval mode"):
            analysis()
    with pytest.raises(ChanceError, match=r"lesion: .*dropout at .*\(random\)\.\n  Trace the model in eval mode"):
        unbraid.lesion(form, BATCHES, loss)


def test_attention_that_drops_out_is_told_with_the_same_remedy():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True, dtype=torch.float64)
    form = unbraid.trace(layer.train(), normal(2, 3, 8))
    with pytest.raises(InexactError, match=r"scaled_dot_product_attention at .*\n  Trace it in eval mode"):
        unbraid.gradient_spectrum(form, normal(2, 3, 8), target=lambda output: output[:, 0, 0])


# nn.TransformerEncoder's fast path.


@pytest.mark.parametrize(
    ("tracer", "learns"),
    [("export", False), *(pytest.param(*case, marks=slow) for case in [("export", True), ("dispatch", False)])],
)
def test_a_padding_mask_on_the_fast_path(tracer, learns):
    """Without gradients torch puts zeros at padded positions; the form is the model as it is with them, and says so."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float64)
    encoder = nn.TransformerEncoder(layer, 2).eval().requires_grad_(learns)
    mask = torch.tensor([[False, False, False], [False, False, True]])
    call = (normal(2, 3, 8), None, mask)
    form = unbraid.trace(encoder, call, tracer=tracer)
    assert len(form.blocks) == 4
    assert "without gradients the model computes something else" in str(form)
    assert "torch.backends.mha.set_fastpath_enabled(False)" in str(form)
    x = call[0].clone().requires_grad_()
    wanted = encoder(x, None, mask)  # an input that asks for gradients keeps torch from the fast path
    assert error(form(*call), wanted.detach()) < 1e-12
    (gradient,) = torch.autograd.grad(wanted[1, 0, 3], x)
    found = unbraid.gradient_spectrum(form, call, target=lambda output: output[:, 0, 3])
    assert error(found.total()[1], gradient[1]) < 1e-12
    if learns:
        with switched(torch.backends.mha.set_fastpath_enabled, False, True):
            assert "without gradients" not in str(unbraid.trace(encoder, call, tracer=tracer))


# The form itself fails.


def test_an_exception_of_the_form_itself_is_told(model, monkeypatch):
    usual = ResidualForm.__call__

    def fails(form, x):
        if len(x) != 4:
            raise IndexError("index 7 is out of range")
        return usual(form, x)

    monkeypatch.setattr(ResidualForm, "__call__", fails)
    with pytest.raises(InexactError, match=r"the form raises IndexError there: index 7 .*\n  Try tracer='dispatch'"):
        unbraid.trace(model, X)


# What is exported is not what is run.


def other_when_exported(net, x):
    return x + (net.f(x) if torch.compiler.is_exporting() else net.g(x))


def test_a_model_that_is_another_when_it_is_exported():
    model = Does(other_when_exported, f=mlp(6), g=lively(mlp(6), seed=1)).double()
    form = unbraid.trace(model, X)
    assert form.tracer == "dispatch"
    assert torch.equal(form(X), model(X))
    assert "torch.export could not take the model: its graph departs from the model by" in str(form)
    with pytest.raises(InexactError, match=r"it departs at the output(.|\n)*try tracer='dispatch'"):
        unbraid.trace(model, X, tracer="export")


def test_where_both_tracers_depart_the_first_is_told():
    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.calls = mlp(6), 0

        def forward(self, x):
            self.calls += 1
            return x + self.f(x) * self.calls

    with pytest.raises(InexactError, match="it keeps something between runs"):
        unbraid.trace(Drifting().double(), X)


def test_what_the_model_itself_raises_is_told():
    """The exporter is given no values, and cannot see it."""

    def forward(net, x):
        return x + net.f(x) + net.table(x[:, 0].abs().long() + 9)

    model = Does(forward, f=mlp(6), table=nn.Embedding(9, 6)).double()
    with pytest.raises(UnbraidError, match=r"the model itself raises IndexError at this input"):
        unbraid.trace(model, X, tracer="export")
