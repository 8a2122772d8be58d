"""Forms whose weights stay in files: the same bits as in memory, and whatever does not fit is refused by name.

Oracles: the model itself, and its form with the weights in memory.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

import unbraid
from networks import lively, normal
from unbraid import all_paths, attribute, gradient_spectrum, lesion, rank, trace, unravel, value_spectrum
from unbraid.errors import CheckpointError, TraceError
from unbraid.form import load
from unbraid.graph.state import Streamed
from unbraid.saved import _tensors

pytest.importorskip("torchvision_stub")
transformers = pytest.importorskip("transformers")
IDS = torch.randint(3, 30, (2, 6), generator=torch.Generator().manual_seed(0))
CALL = {"input_ids": IDS, "use_cache": False}


def _llama(*, tied=False):
    config = transformers.LlamaConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        vocab_size=30,
        tie_word_embeddings=tied,
    )
    return transformers.LlamaForCausalLM(config)


def _in_shards(folder, *, tied):
    """A model, its form in memory, its form that reads shards and was traced without weights, and their folder."""
    model = lively(_llama(tied=tied), scale=0.3, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="8KB")
    with unbraid.empty_weights():
        empty = _llama(tied=tied).eval()
    assert all(p.is_meta for p in empty.parameters())
    form = trace(empty, (), CALL, device="meta").with_weights(folder, stream=True)
    return model, trace(model, (), CALL), form, folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return _in_shards(tmp_path_factory.mktemp("llama"), tied=False)


@pytest.fixture(scope="module", params=["untied", "tied"])
def streamed(request, untied, tmp_path_factory):
    return untied if request.param == "untied" else _in_shards(tmp_path_factory.mktemp("tied"), tied=True)


def test_it_computes_what_the_model_computes_at_any_size(streamed):
    model, _, form, folder = streamed
    assert len(list(folder.glob("*.safetensors"))) > 2
    for ids in (IDS, torch.cat([IDS, IDS.flip(1)], 1)[:1].repeat(3, 1)):
        assert torch.equal(form(input_ids=ids, use_cache=False)["logits"], model(input_ids=ids).logits)
    assert form.verify((), CALL).error < 1e-6


def test_parameters_stay_in_files_and_computed_buffers_in_memory(streamed):
    _, whole, form, _ = streamed
    assert isinstance(form.state, Streamed)
    assert form.state.kept
    assert form.learned.isdisjoint(form.state.kept)
    assert set(form.state) == set(whole.state)
    assert [block.parameters for block in form.blocks] == [block.parameters for block in whole.blocks]


def _loss(output, labels):
    return cross_entropy(output["logits"][:, -1], labels)


def _each(output, labels):
    return cross_entropy(output.logits[:, -1], labels, reduction="none")


ANALYSES = {
    "unravel": lambda form: unravel(form, (), CALL).values,
    "attribute": lambda form: attribute(form, (), CALL, target=(5, 7)).values,
    "attribute by head": lambda form: attribute(form, (), CALL, target=(5, 7), by="head").values,
    "gradient spectrum": lambda form: gradient_spectrum(form, (), CALL, target=(5, 7)).gradients,
    "of parameters": lambda form: gradient_spectrum(form, (), CALL, target=(5, 7), at=2).parameter_norms,
    "value spectrum": lambda form: value_spectrum(form, (), CALL, target=(5, 7)).from_constants,
    "paths": lambda form: all_paths(form, (), CALL, target=(5, 7)).values,
    "lesion": lambda form: torch.tensor(lesion(form, [(CALL, IDS[:, 0])], _loss, sets="pairs").metrics),
    "rank by gradient": lambda form: rank(form, [(CALL, IDS[:, 0])], by="gradient", metric=_loss).scores,
    "rank by influence": lambda form: rank(form, [(CALL, IDS[:, 0])], by="influence").scores,
    "another order": lambda form: form.reorder([0, 3, 2, 1, 4, 5])(**CALL)["logits"],
    "signal": lambda form: unbraid.signal(form, [(CALL, IDS[:, 0])], loss=_each).gradient,
}


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_gives_the_same_bits(streamed, name):
    _, whole, form, _ = streamed
    assert torch.equal(ANALYSES[name](form), ANALYSES[name](whole))


def test_a_backward_walk_keeps_no_parameter(untied):
    """What autograd holds between the runs forward and back are activations: of parameters only their names."""
    _, _, form, _ = untied
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        tape = form.tape((), CALL)
    assert not kept  # the inner hooks, the form's own, took them all
    reads = []
    read, _tensors.Stored.read = _tensors.Stored.read, lambda self: reads.append(self.name) or read(self)
    try:
        last = form.segments[-1]
        tape.pull(last, (torch.ones_like(tape.values[last.outputs[0]])[None],))
    finally:
        _tensors.Stored.read = read
    assert any("lm_head" in name or "embed" in name for name in reads)


def test_in_float64_what_is_read_is_widened(tmp_path):
    model = lively(_llama(), scale=0.3, dtype=torch.float64)
    model.model.norm.float()
    model.save_pretrained(tmp_path)
    whole = trace(model, (), CALL, tolerance=1e-6)
    form = whole.with_weights(tmp_path, stream=True)
    assert form.exact.state["model.norm.weight"].dtype is torch.float64
    assert torch.equal(unravel(form, (), CALL).values, unravel(whole, (), CALL).values)


def test_weights_are_converted_to_the_types_of_the_form(tmp_path):
    model = lively(_llama(), scale=0.3, dtype=torch.float32)
    coarse = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    save_file(coarse, tmp_path / "model.safetensors")
    form = trace(model, (), CALL).with_weights(tmp_path / "model.safetensors", stream=True)
    model.load_state_dict(coarse)
    assert torch.equal(form(**CALL)["logits"], model(**CALL).logits)
    assert form.error != form.error  # nothing was run with these weights


def test_batch_norm_and_a_pool_as_timm_writes_them(tmp_path):
    timm = pytest.importorskip("timm")
    model = lively(timm.create_model("resnet18", num_classes=5), scale=0.1, dtype=torch.float32)
    images = normal(2, 3, 32, 32).float()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with unbraid.empty_weights():
        empty = timm.create_model("resnet18", num_classes=5).eval()
    form = trace(empty, images, device="meta").with_weights(tmp_path, stream=True)
    assert torch.equal(form(images), model(images))
    found, wanted = (gradient_spectrum(f, images, target=1).gradients for f in (form, trace(model, images)))
    assert torch.equal(found, wanted)


def test_a_saved_form_is_streamed(tmp_path):
    model = unbraid.nn.mlp(depth=3, width=6, norm="batch", generator=torch.Generator().manual_seed(0)).double().eval()
    x = normal(3, 40)
    trace(model, x).save(tmp_path / "a")
    form = load(tmp_path / "a", stream=True)
    assert isinstance(form.state, Streamed)
    assert torch.equal(form(x), model(x))
    assert form.verify(x).error < 1e-12
    again = load(form.save(tmp_path / "b"))
    assert torch.equal(again(x), model(x))


def test_into_memory_it_is_an_ordinary_form(streamed):
    model, _, form, folder = streamed
    loaded = form.with_weights(folder)
    assert isinstance(loaded.state, dict)
    assert torch.equal(loaded(**CALL)["logits"], model(**CALL).logits)


def test_code_made_on_the_meta_device_makes_its_tensors_where_the_weights_are():
    """Positions by arange carry their device in the graph; `to` moves them, and back."""
    model = lively(_llama(), scale=0.3, dtype=torch.float32)
    form = trace(model, (), CALL)
    moved = form.to("meta")
    devices = {str(v) for s in moved.segments for n in s.code.graph.nodes for v in n.kwargs.values() if _is_device(v)}
    assert devices == {"meta"}
    back = replace(moved, state=form.state).to("cpu")
    assert torch.equal(back(**CALL)["logits"], model(**CALL).logits)


def _is_device(value):
    return isinstance(value, torch.device)


# What does not fit.


@pytest.fixture
def shards(untied, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(untied[3], folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return untied[2], folder, index


def test_a_truncated_shard_is_named(shards):
    form, folder, index = shards
    shard = folder / index["model.layers.1.mlp.up_proj.weight"]
    content = shard.read_bytes()
    shard.write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match=rf"{shard.name} is cut short: its header describes {len(content)} bytes"):
        form.with_weights(folder, stream=True)


def test_swapped_shards_are_named(shards):
    form, folder, index = shards
    one, other = sorted(set(index.values()))[:2]
    (folder / one).rename(folder / "spare")
    (folder / other).rename(folder / one)
    (folder / "spare").rename(folder / other)
    with pytest.raises(CheckpointError, match=r"lacks '.*', which .*index.json places there.*two shards were swapped"):
        form.with_weights(folder, stream=True)


def test_a_missing_tensor_is_named(shards):
    form, folder, index = shards
    name = "model.layers.2.input_layernorm.weight"
    weights = load_file(folder / index[name])
    del weights[name]
    save_file(weights, folder / index.pop(name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(CheckpointError, match=rf"does not fit the form:\n  no file has '{name}'"):
        form.with_weights(folder, stream=True)


def test_other_sizes_are_named(shards):
    form, folder, index = shards
    name = "model.norm.weight"
    weights = load_file(folder / index[name])
    save_file({**weights, name: torch.ones(5)}, folder / index[name])
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' of sizes \[5\], the form \[16\]"):
        form.with_weights(folder, stream=True)


def test_a_file_that_changes_after_it_was_looked_at_is_named(shards):
    form, folder, index = shards
    loaded = form.with_weights(folder, stream=True)
    shard = folder / index["model.norm.weight"]
    shard.write_bytes(shard.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=rf"{shard.name} has changed since '.*' was found in it"):
        loaded(**CALL)


@pytest.mark.parametrize("name", ["../a.safetensors", "", "..", ".", "/etc/passwd", "a\0b", "a/b"])
def test_an_index_reaches_no_file_outside_its_folder(shards, name):
    form, folder, _ = shards
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=r"which is no file of its own folder"):
        form.with_weights(folder, stream=True)


@pytest.mark.parametrize("damage", ["no file", "empty", "noise", "json", "fact", "index", "twice"])
def test_damage_is_named(shards, damage):
    form, folder, index = shards
    shard = folder / index["model.norm.weight"]
    header = b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'
    if damage == "index":
        (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    elif damage == "twice":
        (folder / "model.safetensors.index.json").unlink()
        shutil.copy(shard, folder / "again.safetensors")
    elif damage == "no file":
        shard.unlink()
    else:
        content = {"empty": b"", "noise": b"\x07" * 99, "json": (9).to_bytes(8, "little") + b"[1, 2, 3]"}
        shard.write_bytes(content.get(damage, len(header).to_bytes(8, "little") + header + b"\0" * 4))
    with pytest.raises(CheckpointError, match=r"^load: "):
        form.with_weights(folder, stream=True)


def test_pickled_weights_are_not_looked_at(shards, tmp_path):
    form = shards[0]
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds no \.safetensors file.*could run code"):
        form.with_weights(tmp_path, stream=True)


def test_a_buffer_without_values_is_named(untied):
    """Under torch.device("meta") rotary frequencies are never computed, and no file has them."""
    with torch.device("meta"):
        empty = _llama().eval()
    form = trace(empty, (), CALL, device="meta")
    with pytest.raises(CheckpointError, match=r"inv_freq' is computed by the model.*within unbraid.empty_weights\(\)"):
        form.with_weights(untied[3], stream=True)


def test_what_has_no_weights_is_not_saved(tmp_path):
    with unbraid.empty_weights():
        empty = _llama().eval()
    form = trace(empty, (), CALL, device="meta")
    assert form.error != form.error
    with pytest.raises(TraceError, match=r"has no weights; form.with_weights\(FOLDER\) first"):
        form.save(tmp_path / "a")


def test_another_device_is_no_choice_of_trace():
    with pytest.raises(ValueError, match=r'device is "meta", or None .*; \'cuda\' came'):
        trace(nn.Linear(2, 2), torch.ones(1, 2), device="cuda")


@pytest.mark.parametrize("norm", ["batch", None])
def test_networks_of_our_own_are_made_without_weights(norm, tmp_path):
    x = normal(3, 40).float()
    network = unbraid.nn.mlp(depth=3, width=6, norm=norm, generator=torch.Generator().manual_seed(0)).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    with unbraid.empty_weights():
        empty = unbraid.nn.mlp(depth=3, width=6, norm=norm, generator=torch.Generator().manual_seed(0)).eval()
    assert all(p.is_meta for p in empty.parameters())
    assert not any(b.is_meta for b in empty.buffers())
    assert torch.equal(trace(empty, x, device="meta").with_weights(tmp_path, stream=True)(x), network(x))
    assert not any(p.is_meta for p in unbraid.nn.mlp(depth=1).parameters())
