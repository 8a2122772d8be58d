"""Models of transformers: configuration, cache, and files of the smaller model."""

import copy
import json

import pytest
import torch

import unbraid
from marks import quick, slow
from networks import error, lively, normal
from pruning._models import LAYERS, first, inputs, made
from unbraid.errors import CheckpointError
from unbraid.pruning import layers, pruning
from unbraid.pruning._config_entries import trials
from unbraid.pruning._surgery import Cut

COUNTS = {
    "GPT2": "n_layer",
    "Llama": "num_hidden_layers",
    "OPT": "num_hidden_layers",
    "Gemma2": "num_hidden_layers",
    "GPTNeo": "num_layers",
    "T5": "num_decoder_layers",
}


def generated(model, cached, name="GPT2"):
    ids = inputs(name)["input_ids"]
    # Ids above those of the special tokens, so that no sequence ends early.
    return model.generate(
        input_ids=ids, max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=cached, pad_token_id=0
    )


def slots(cache):
    return len(cache)


@pytest.mark.parametrize("name", quick(COUNTS, "GPT2"))
def test_generate_round_trip_and_cache(name, tmp_path):
    model, _, kwargs, form = made(name)
    transformers = pytest.importorskip("transformers")
    group = layers(model, form)[-2 if name != "T5" else -1]
    smaller = unbraid.prune(model, form, group)

    old = getattr(model.config, COUNTS[name])
    assert getattr(smaller.config, COUNTS[name]) == old - 1
    changed = {k for k, v in smaller.config.to_dict().items() if v != model.config.to_dict()[k]}
    assert changed <= {COUNTS[name], "layer_types", "attention_types", "attention_layers"}

    assert torch.equal(generated(smaller, True, name), generated(smaller, False, name))
    with torch.no_grad():
        cache = smaller(**{**kwargs, "use_cache": True}).past_key_values
    assert slots(cache) == old - 1

    smaller.save_pretrained(tmp_path)
    again = getattr(transformers, type(model).__name__).from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():  # what is loaded computes its rotary angles in float32, whatever the type of the model
        assert error(first(again(**kwargs)), first(smaller(**kwargs))) < 1e-6
    assert torch.equal(generated(again, True, name), generated(smaller, True, name))


@pytest.mark.slow
def test_the_entries_of_a_list_go_with_their_layers():
    model, _, _, form = made("Gemma2")
    smaller = pruning(model, form, layers(model, form)[1])
    kinds = model.config.layer_types
    assert len(set(kinds)) == 2
    assert smaller.model.config.layer_types == [kinds[0], *kinds[2:]]
    assert smaller.configuration == ("layer_types: 3 of 4 entries", "num_hidden_layers: 4 -> 3")


@pytest.mark.slow
def test_a_decoder_with_a_configuration_of_its_own():
    model, _, _, form = made("T5")
    group = layers(model, form)[3]
    smaller = unbraid.prune(model, form, group)
    assert smaller.config.num_layers == 2
    assert smaller.config.num_decoder_layers == 1
    assert smaller.decoder.config.num_layers == 1
    assert smaller.encoder.config.num_layers == 2
    assert model.decoder.config.num_layers == 2


@pytest.mark.slow
def test_what_no_configuration_describes_is_not_taken_out():
    """Each layer's attention is divided by its number: renumbered, it is another layer."""
    model, _, kwargs, form = made("GPT2 scaled")
    smaller = pruning(model, form, layers(model, form)[1])
    assert smaller.how == "branches"
    assert (
        "by taking out members: ValueError: what GPT2LMHeadModel builds from its changed configuration has other"
        in (smaller.refused[0])
    )
    with torch.no_grad():
        assert error(first(smaller.model(**kwargs)), first(form.without(2, 3)(**kwargs))) < 1e-12
    assert torch.equal(generated(smaller.model, True), generated(smaller.model, False))


@pytest.mark.parametrize("name", ["GPT2", slow("Llama"), slow("OPT")])
def test_without_the_first_attention_the_cache_still_counts(name):
    """The first slot says how long the sequence is: the attention that is first then must fill it."""
    model, _, _, form = made(name)
    smaller = pruning(model, form, [0])
    assert smaller.how == "branches"
    assert torch.equal(generated(smaller.model, True), generated(smaller.model, False))


def test_a_cache_that_could_not_count_is_refused():
    """Gemma 2's layers have slots of two kinds: their attention cannot move to another's."""
    model, _, kwargs, form = made("Gemma2")
    smaller = pruning(model, form, [0])
    assert smaller.how == "graph"
    assert "by replacing modules: with a key-value cache it departs from itself" in smaller.refused[0]
    assert error(first(smaller.model(**kwargs)), first(form.without(0)(**kwargs))) < 1e-12


def test_configurations_are_json(tmp_path):
    model, _, _, form = made("GPTNeo")
    smaller = unbraid.prune(model, form, layers(model, form)[0])
    smaller.save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    assert facts["num_layers"] == LAYERS - 1
    assert smaller.config.attention_layers == ["global", "local", "local"]


def test_trials_change_one_entry_that_counts_and_few_lists():
    facts = {"layers": 2, "heads": 2, "size": [2, 8], "kinds": ["a", "b"], "pattern": [[["a", "b"], 1]], "on": True}
    found = [(trial, said) for trial, said in trials(facts, Cut(("h",), ("0", "1"), (1,)))]
    assert found[0] == ({**facts, "layers": 1}, ["layers: 2 -> 1"])
    assert [said for _, said in found[:3]] == [["layers: 2 -> 1"], ["heads: 2 -> 1"], ["size.0: 2 -> 1"]]
    thinned = [trial for trial, said in found if said == ["kinds: 1 of 2 entries", "layers: 2 -> 1"]]
    assert thinned == [{**facts, "layers": 1, "kinds": ["b"]}]
    patterns = [trial["pattern"] for trial, said in found if said == ["pattern: 1 of 2 entries"]]
    assert patterns == [[[["b"], 1]]]
    assert facts["kinds"] == ["a", "b"]


def test_entries_that_follow_from_the_count_follow_it(tmp_path):
    """DINOv2's configuration names every layer as a stage; the names must not contradict the number."""
    pytest.importorskip("torchvision_stub")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    model = lively(transformers.Dinov2Model(transformers.Dinov2Config(**sizes)), scale=0.3)
    x = normal(2, 3, 16, 16)
    form = unbraid.trace(model, x)
    smaller = pruning(model, form, layers(model, form)[1])
    assert smaller.configuration == ("num_hidden_layers: 3 -> 2",)
    assert smaller.model.config.stage_names == ["stem", "stage1", "stage2"]
    smaller.model.save_pretrained(tmp_path)
    again = transformers.Dinov2Model.from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():
        assert error(first(again(x)), first(form.without(2, 3)(x))) < 1e-12


KEEP = r"Keep the form of the pruned model instead: form\.without\({}\)\.save\(folder\)"


@pytest.mark.parametrize(("name", "remove"), [("GPT2", [2]), ("Bert", [(1, 0)]), slow("OPT", [5]), slow("Gemma2", [0])])
def test_what_would_be_loaded_with_random_weights_is_not_saved(name, remove, tmp_path):
    """Branches went, and the configuration builds them again: attention alone, an MLP, a branch, a graph."""
    model, _, kwargs, form = made(name)
    smaller = pruning(model, form, remove)
    assert smaller.how in {"branches", "graph"}
    gone = ", ".join(map(str, remove)).replace("(", r"\(").replace(")", r"\)")
    for holder in (smaller.model, copy.deepcopy(smaller.model)):
        with pytest.raises(CheckpointError, match=KEEP.format(gone)):
            holder.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    form.without(*remove).save(tmp_path / "form")
    with torch.no_grad():
        again = unbraid.load(tmp_path / "form")
        assert error(first(tuple(again(**kwargs).values())), first(smaller.model(**kwargs))) < 1e-12
    assert "save_pretrained" not in vars(model)


@pytest.mark.slow
def test_parts_with_a_library_of_their_own_refuse_too(tmp_path):
    """The body of a language model, and a network of transformers in a module of one's own."""
    model, _, kwargs, form = made("GPT2")
    smaller = unbraid.prune(model, form, [2])
    with pytest.raises(CheckpointError, match=r"would build transformer\.h\.1\.ln_1, transformer\.h\.1\.attn again"):
        smaller.transformer.save_pretrained(tmp_path)

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, ids):
            return self.body(ids, use_cache=False).logits

    own = Own().eval()
    ids = kwargs["input_ids"]
    form = unbraid.trace(own, ids)
    layer = unbraid.prune(own, form, layers(own, form)[1])
    assert len(layer.body.transformer.h) == len(model.transformer.h) - 1
    for part in (layer.body, layer.body.transformer):  # whose configuration says nothing of the layer that went
        with pytest.raises(CheckpointError, match="save_pretrained: the configuration of GPT2"):
            part.save_pretrained(tmp_path)


def test_a_model_without_whole_layers_is_saved_with_its_parts(tmp_path):
    model, _, kwargs, form = made("GPT2")
    smaller = unbraid.prune(model, form, layers(model, form)[1])
    smaller.transformer.save_pretrained(tmp_path)
    again = type(smaller.transformer).from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():
        assert error(first(again(**kwargs)), first(smaller.transformer(**kwargs))) < 1e-12


@pytest.mark.slow
def test_where_the_form_cannot_be_saved_the_state_is_kept():
    """A recorded run has no file: then the whole model is pruned again and given the state."""
    model, args, kwargs, _ = made("GPT2")
    form = unbraid.trace(model, args, kwargs, tracer="dispatch")
    smaller = unbraid.prune(model, form, [2])
    with pytest.raises(CheckpointError, match=r"Keep its state_dict\(\).*prune\(model, form, \[2\]\)"):
        smaller.save_pretrained("nowhere")
    again = unbraid.prune(model, form, [2])
    again.load_state_dict(smaller.state_dict())
