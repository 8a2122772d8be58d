"""A pruned model computes what the form without the blocks computes, and is smaller by what they held."""

import pytest
import torch
from torch import nn

import unbraid
import unbraid.nn as unn
from book_networks import batch, features, images
from marks import quick, slow
from networks import Chain, Does, Residual, error, mlp, normal
from pruning._models import LAYERS, first, inputs, made, state
from unbraid.errors import InexactError
from unbraid.pruning import layers, pruning
from unbraid.pruning._form_module import FormModule
from unbraid.pruning._surgery import index_attributes
from unbraid.pruning._zero_module import Nothing

TIGHT = 1e-12


def outputs(model, args, kwargs):
    with torch.no_grad():
        return first(model(*args, **kwargs))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def elsewhere(name):
    """Other inputs; of other sizes, too, but T5, whose form is a recorded run."""
    _, args, kwargs, _ = made(name)
    sizes = {} if name == "T5" else {"batch": 3, "length": 4}
    return tuple(normal(3, *arg.shape[1:], seed=1) for arg in args), inputs(name, seed=1, **sizes) if kwargs else {}


# A layer in the middle, and what its members are: attention and MLP return their branch.
WHOLE = [
    ("GPT2", 1, "transformer.h.1", ["attn", "mlp"]),
    ("Llama", 2, "model.layers.2", ["self_attn", "mlp"]),
    ("OPT", 3, "model.decoder.layers.3", ["self_attn", "fc2"]),
    ("Gemma2", 0, "model.layers.0", ["post_attention_layernorm", "post_feedforward_layernorm"]),
    ("GPTNeo", 2, "transformer.h.2", ["attn", "mlp"]),
    ("T5", 3, "decoder.block.1", ["layer.0.SelfAttention", "layer.1.EncDecAttention", "layer.2.DenseReluDense"]),
    ("vit_tiny_patch16_224", 1, "blocks.1", ["attn", "mlp"]),
]


@pytest.mark.parametrize(
    ("name", "layer", "path", "ends"),
    quick(WHOLE, "GPT2", "vit_tiny_patch16_224"),
    ids=[case[0] for case in WHOLE],
)
def test_whole_members_go(name, layer, path, ends):
    model, _, _, form = made(name)
    group = layers(model, form)[layer]
    before = state(model)
    smaller = pruning(model, form, group)

    assert smaller.how == "members"
    assert smaller.modules == (path,)
    assert type(smaller.model) is type(model)
    member = model.get_submodule(path)
    assert smaller.parameters == (parameters(model), parameters(model) - parameters(member))
    assert parameters(smaller.model) == smaller.parameters[1]
    assert smaller.flops[1] < smaller.flops[0]
    assert smaller.refused == ()

    # The oracle: the untouched model, with the ends of the layer's branches made zero by hooks.
    hooks = [member.get_submodule(end).register_forward_hook(_zero) for end in ends]
    other, more = elsewhere(name)
    wanted = outputs(model, other, more)
    for hook in hooks:
        hook.remove()
    assert error(outputs(smaller.model, other, more), wanted) < TIGHT
    assert error(first(form.without(*group)(*other, **more)), wanted) < TIGHT

    after = state(model)
    assert before[1:] == after[1:]
    assert all(torch.equal(tensor, after[0][key]) for key, tensor in before[0].items())
    with torch.no_grad():
        next(smaller.model.parameters()).add_(1.0)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in before[0].items())


def _zero(module, args, output):
    if isinstance(output, torch.Tensor):
        return torch.zeros_like(output)
    return (torch.zeros_like(output[0]), *output[1:])


@pytest.mark.parametrize("name", ["GPT2", slow("Llama"), slow("Bert"), slow("T5"), "resnet18", slow("convnext_atto")])
def test_removing_nothing_gives_the_same(name):
    model, args, kwargs, form = made(name)
    same = pruning(model, form, [])
    assert same.how == "members"
    assert same.parameters[0] == same.parameters[1]
    assert torch.equal(outputs(same.model, args, kwargs), outputs(model, args, kwargs))
    assert same.model is not model


PARTS = [
    ("GPT2", [4], ["transformer.h.2.ln_1", "transformer.h.2.attn"]),
    slow("Llama", [3], ["model.layers.1.mlp", "model.layers.1.post_attention_layernorm"]),
    ("Bert", [0], ["encoder.layer.0.attention.self", "encoder.layer.0.attention.output.dense"]),
    slow("Bert", [3], ["encoder.layer.1.intermediate", "encoder.layer.1.output.dense"]),
    # The bias of the first attention serves all others: it stays, and only what is the branch's own goes.
    slow(
        "T5", [0], [f"encoder.block.0.layer.0.{end}" for end in ("layer_norm", *(f"SelfAttention.{x}" for x in "qkvo"))]
    ),
    ("GPTJ", [(1, 0)], ["transformer.h.1.attn"]),
    ("resnet18", [1], [f"layer1.1.{end}" for end in ("conv1", "bn1", "act1", "conv2", "bn2")]),
]


@pytest.mark.parametrize(("name", "remove", "gone"), PARTS, ids=lambda part: str(part)[:24])
def test_parts_of_members_add_nothing(name, remove, gone):
    model, _, _, form = made(name)
    smaller = pruning(model, form, remove)
    assert smaller.how == "branches"
    # GPT-J's norm serves the MLP beside the attention, and stays.
    assert sorted(smaller.modules) == sorted(gone)
    assert smaller.parameters[0] - smaller.parameters[1] == sum(parameters(model.get_submodule(path)) for path in gone)
    assert all(isinstance(smaller.model.get_submodule(path), Nothing) for path in gone)
    assert smaller.flops[1] < smaller.flops[0]
    other, more = elsewhere(name)
    wanted = first(form.without(*remove)(*other, **more))
    assert error(outputs(smaller.model, other, more), wanted) < TIGHT


def test_a_projection_stays_where_its_branch_goes():
    model, args, _, form = made("resnet18")
    smaller = pruning(model, form, [2])
    assert form.blocks[2].skip == "projection"
    assert smaller.how == "branches"
    assert smaller.modules == ("layer2.0",)
    assert [name for name, _ in smaller.model.layer2[0].named_children()] == ["downsample", "act2"]
    with torch.no_grad():
        h = model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(args[0])))))
        h = torch.relu(model.layer2[0].downsample(h))
        h = model.layer4(model.layer3(model.layer2[1](h)))
        wanted = model.fc(model.global_pool(h))
    assert error(outputs(smaller.model, args, {}), wanted) < TIGHT
    # What is left serves images of other sizes, which the form does not.
    assert smaller.model(normal(1, 3, 96, 80)).shape == (1, 5)


def test_members_of_nested_lists_go_and_the_rest_of_the_stage_stays():
    model, _, _, form = made("convnext_atto")
    smaller = pruning(model, form, [2, 3])
    assert smaller.how == "members"
    assert smaller.modules == ("stages.1.blocks.0", "stages.1.blocks.1")
    assert len(smaller.model.stages) == 4
    assert len(smaller.model.stages[1].blocks) == 0


def test_members_and_parts_go_together():
    model, args, _, form = made("vit_tiny_patch16_224")
    smaller = pruning(model, form, [0, 1, 3])
    assert smaller.how == "branches"
    assert len(smaller.model.blocks) == 2
    assert isinstance(smaller.model.blocks[0].mlp, Nothing)
    assert error(outputs(smaller.model, args, {}), form.without(0, 1, 3)(*args)) < TIGHT


class Shared(nn.Module):
    """One layer, used twice."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Residual(mlp(6))])

    def forward(self, x):
        return self.layers[0](self.layers[0](x))


def test_half_of_a_shared_layer_is_only_left_out_in_the_graph():
    torch.manual_seed(0)
    model = Shared().double()
    x = normal(3, 6)
    form = unbraid.trace(model, x)
    with pytest.warns(UserWarning, match=r"Shared cannot be made smaller as it is .* is the graph of form\.without"):
        smaller = unbraid.prune(model, form, [1])
    assert isinstance(smaller, FormModule)
    assert error(smaller(x), form.without(1)(x)) < TIGHT
    assert {name for name, _ in smaller.named_parameters()} == {name for name, _ in model.named_parameters()}
    smaller(x).sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert smaller.state_dict().keys() == model.state_dict().keys()


def test_a_graph_keeps_parameters_tied():
    layer = nn.Linear(6, 6).double()

    def forward(self, x):
        x = x + torch.tanh(self.a(x))
        x = x + torch.tanh(nn.functional.linear(x, self.c.weight))
        return x + torch.tanh(self.b(x))

    model = Does(forward, a=layer, b=layer, c=nn.Linear(6, 6, bias=False).double())
    form = unbraid.trace(model, normal(3, 6))
    with pytest.warns(UserWarning, match="graph"):
        smaller = unbraid.prune(model, form, [1])
    assert parameters(smaller) == parameters(layer)


class Mean(nn.Module):
    """The number of its blocks is part of what it computes: without a member the others weigh more."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Residual(mlp(6)) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x / len(self.blocks)


def test_the_check_sees_what_a_missing_member_changes():
    torch.manual_seed(0)
    model = Mean().double()
    x = normal(3, 6)
    form = unbraid.trace(model, x)
    smaller = pruning(model, form, [1])
    assert smaller.how == "branches"
    assert len(smaller.model.blocks) == 3
    assert smaller.refused[0].startswith("by taking out members: its outputs depart from form.without(...) by 5.0e-01")
    assert error(smaller.model(x), form.without(1)(x)) < TIGHT


def test_no_way_is_an_error(monkeypatch):
    torch.manual_seed(0)
    model = Mean().double()
    form = unbraid.trace(model, normal(3, 6))
    monkeypatch.setattr(Nothing, "forward", lambda self, x: x)
    monkeypatch.setattr(FormModule, "forward", lambda self, x: x)
    with pytest.raises(InexactError, match=r"(?s)no way .* by taking out members: .* by replacing .* as a graph: "):
        pruning(model, form, [1])


class Numbered(nn.Module):
    """A block that knows its place, and multiplies by what it keeps under that number."""

    def __init__(self, layer_idx, heads=2):
        super().__init__()
        self.layer_idx, self.heads = layer_idx, heads
        self.inner = Does(lambda self, x: torch.tanh(self.weight(x)), weight=nn.Linear(6, 6))
        self.inner.layer_id = layer_idx

    def forward(self, x):
        return x + self.inner(x)


def test_numbers_that_count_along_with_the_list_are_mended():
    model = Chain(*(Numbered(place) for place in range(4))).double()
    assert index_attributes(model.blocks) == {"layer_idx", "layer_id"}
    form = unbraid.trace(model, normal(3, 6))
    smaller = unbraid.prune(model, form, [0, 2])
    assert [block.layer_idx for block in smaller.blocks] == [0, 1]
    assert [block.inner.layer_id for block in smaller.blocks] == [0, 1]
    assert [block.heads for block in smaller.blocks] == [2, 2]
    assert [block.layer_idx for block in model.blocks] == [0, 1, 2, 3]


def test_named_members_keep_their_names():
    parts = {f"layer_{k}": Residual(mlp(6)) for k in range(3)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    smaller = unbraid.prune(model.double(), unbraid.trace(model, normal(3, 6)), [1])
    assert [name for name, _ in smaller.named_children()] == ["layer_0", "layer_2"]


@pytest.mark.parametrize("make", [features, images], ids=["mlp", "conv2d"])
def test_networks_of_ours_say_what_they_lack(make):
    model = make()
    x = batch(model)
    form = unbraid.trace(model, x)
    smaller = pruning(model, form, [1])
    assert smaller.how == "members"
    assert smaller.model.config == {**model.config, "without": [1]}
    again = unn.build(smaller.model.config).double().eval()
    again.load_state_dict(smaller.model.state_dict())
    assert error(again(x), form.without(1)(x)) < TIGHT
    # The rest keep their numbers: a second removal means the same blocks.
    twice = unbraid.prune(smaller.model, unbraid.trace(smaller.model, x), [1])
    assert twice.config["without"] == [1, 2]


def test_a_chain_loses_layers():
    model = features().plain().eval()
    x = batch(model)
    form = unbraid.chain(model, x, layers=["layers"])
    smaller = pruning(model, form, [1])
    assert smaller.model.config["without"] == [1]
    assert error(smaller.model(x), form.without(1)(x)) < TIGHT


def test_batch_norm_in_train_mode_is_not_written():
    model = features(norm="batch", order="linear norm act +").train()
    x = batch(model)
    form = unbraid.trace(model, x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller = unbraid.prune(model, form, [0])
    assert smaller.training
    kept = smaller.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_check_may_be_made_at_other_inputs(tmp_path):
    model = features()
    form = unbraid.load(unbraid.trace(model, batch(model)).save(tmp_path))
    with pytest.raises(ValueError, match=r"keeps no inputs .* prune\(model, form, remove, args\)"):
        unbraid.prune(model, form, [0])
    # In the trace's place any batch will do; the numbers that a loaded form has are those of the file.
    smaller = unbraid.prune(model, form, [0], batch(model, seed=5))
    assert error(smaller(batch(model)), form.without(0)(batch(model))) < TIGHT


def test_wrong_input_is_told():
    model = features()
    form = unbraid.trace(model, batch(model))
    with pytest.raises(IndexError, match=r"there is no block 7; blocks are numbered 0 to 2"):
        unbraid.prune(model, form, [7])
    with pytest.raises(IndexError, match=r"block 1 has no branch 1; branches are numbered 0 to 0"):
        unbraid.prune(model, form, [(1, 1)])
    with pytest.raises(ValueError, match=r"all that is to go; this one is without \(0,\)"):
        unbraid.prune(model, form.without(0), [1])
    with pytest.raises(ValueError, match=r"made from another model, or its weights were replaced since: 'blocks\.0"):
        unbraid.prune(unn.build(model.config).double(), form, [1])
    with pytest.raises(ValueError, match=r"made from another model: Linear has no parameter 'blocks\.0"):
        unbraid.prune(nn.Linear(2, 2), form, [1])
    with torch.device("meta"):
        bare, x = unn.mlp(depth=2), torch.empty(2, 40)
    with pytest.raises(ValueError, match="on the meta device nothing can be checked"):
        unbraid.prune(bare, unbraid.trace(bare.eval(), x), [1])


def test_a_report_of_what_was_saved():
    model, _, _, form = made("GPT2")
    smaller = pruning(model, form, layers(model, form)[0])
    facts = smaller.to_dict()
    assert facts["configuration"] == ["n_layer: 4 -> 3"]
    assert facts["parameters"] == list(smaller.parameters)
    # Of one call on 2 x 6 tokens: a layer's four matrices, twice each product, and the two products of attention.
    d, tokens = 16, 12
    layer = 2 * tokens * 12 * d * d + 2 * (2 * 2 * 6 * 6 * d)
    assert smaller.flops[0] - smaller.flops[1] == layer
    text = repr(smaller)
    assert "whole members of its lists were taken out" in text
    assert f"{smaller.parameters[1]:,}" in text
    assert "n_layer: 4 -&gt; 3" in smaller._repr_html_()
    assert len(layers(model, form)) == LAYERS
