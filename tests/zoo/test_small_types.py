"""Configurations become small without losing a kind of layer, models of them run, and limits end what goes on."""

import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torchaudio_stub  # noqa: F401
import torchvision_stub  # noqa: F401
from oracles.ledger import Ledger
from zoo.config_sizes import Sizes
from zoo.entry import Made
from zoo.input_makers import text
from zoo.limited import Limits, each
from zoo.measured_type import beyond_any_form, measure
from zoo.model_types import make, names
from zoo.small_configs import HEAD_WIDTH, HEADS, VOCABULARY, WIDTH, Small
from zoo.type_exceptions import INPUTS, SETTINGS
from zoo.type_result import TypeResult
from zoo.types_page import page


def configuration(name):
    import transformers

    return transformers.CONFIG_MAPPING[name]()


def test_widths_layers_and_the_vocabulary_become_small():
    small = Small()(configuration("llama"))
    assert (small.hidden_size, small.num_hidden_layers, small.num_attention_heads) == (WIDTH, 2, HEADS)
    assert (small.vocab_size, small.head_dim) == (VOCABULARY, HEAD_WIDTH)


def test_one_layer_of_each_kind_is_kept():
    whole = configuration("gemma3_text")
    small = Small()(whole)
    assert set(small.layer_types) == set(whole.layer_types)
    assert len(small.layer_types) == small.num_hidden_layers < whole.num_hidden_layers


def test_a_special_id_is_one_number_everywhere_and_no_ordinary_token():
    small = Small()(configuration("qwen3_vl"))
    assert small.image_token_id != small.video_token_id
    assert max(small.image_token_id, small.video_token_id) < VOCABULARY
    ids = text(Sizes(small), 200)
    assert not set(ids.unique().tolist()) & Sizes(small).special


def test_sections_of_a_rotary_embedding_share_half_a_head():
    small = Small()(configuration("cosmos3_edge_text"))
    assert sum(small.rope_parameters["mrope_section"]) == small.head_dim // 2


@pytest.mark.parametrize("name", ["llama", "clip", "t5"])
def test_what_is_made_runs(name):
    made = make(name)
    with torch.no_grad():
        returned = made.model(**made.kwargs)
    assert all(value.shape[0] == 2 for value in made.kwargs.values() if isinstance(value, torch.Tensor))
    assert torch.isfinite(returned.to_tuple()[0]).all()


def test_exceptions_are_of_types_that_there_are():
    if set(names()) >= {"qwen3_vl", "gemma3n"}:  # the newest versions have all of them
        assert not (SETTINGS.keys() | INPUTS.keys()) - set(names())


def test_an_addition_that_a_form_passes_over_is_unseen():
    result = measure("bert", make)
    assert result.verdict(Ledger({})) == "exact", (result.reason, result.unseen(Ledger({})))
    assert (result.blocks, result.kinds) == (4, {"identity, sum": 4})
    assert result.spectrum < 1e-5
    lines = dict(result.counted)
    line, _ = lines.popitem()
    silent = TypeResult(**vars(result) | {"counted": lines})
    assert silent.verdict(Ledger({})) == "wrong"
    assert [text.split(" ")[0] for text in silent.unseen(Ledger({}))] == [line]


class Drawn(nn.Module):
    def __init__(self, draws):
        super().__init__()
        self.f, self.draws = nn.Linear(4, 4), draws

    def forward(self, x):
        return self.f(x) + (torch.rand(4) if self.draws else 0)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_a_model_that_no_form_can_follow_is_told_by_itself():
    x = torch.randn(2, 4)
    assert not beyond_any_form(Made(Drawn(False), (x,), {}))
    assert beyond_any_form(Made(Drawn(True), (x,), {}))
    rounded = nn.Sequential(nn.Linear(4, 4))
    rounded.register_forward_hook(lambda module, args, output: Straight.apply(output))
    assert beyond_any_form(Made(rounded, (x,), {}))


def test_a_line_that_counts_more_than_it_adds_stands_for_as_many_others():
    ran = [["m.py", "f", "a + b", 1, 2], ["m.py", "f", "c + d", 2, 2]]
    counted = TypeResult("a", ran=ran, counted={"m.py:1": 4})
    assert counted.unseen(Ledger({})) == []
    assert TypeResult("a", ran=ran, counted={"m.py:1": 3}).unseen(Ledger({})) == ["m.py:2 (2): c + d"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mimi_decoder", id="sizes from numbers in buffers"),
        pytest.param("hunyuan_vl", id="parts that are returned and put together again"),
        pytest.param("gemma3n_text", id="a block whose operands two lines add"),
        pytest.param("d_fine", id="gates that read the branch"),
        pytest.param("jetmoe", id="sizes counted from data"),
        pytest.param("paligemma", id="a graph that departs from the run"),
        pytest.param("nemotron_asr_streaming_encoder", id="reshapes that were captured as views"),
    ],
)
def test_types_that_failed_once(name):
    result = measure(name, make)
    assert result.verdict(Ledger({})) == "exact", (result.reason, result.unseen(Ledger({})))


def test_the_page_holds_the_bars():
    results = [
        TypeResult("a", blocks=4, kinds={"identity, sum": 4}, error=0.0, spectrum=1e-7),
        TypeResult("b", failure="refused", reason="TraceError: no | graph"),
        TypeResult("c", failure="unbuilt", reason="ImportError: natten"),
    ]
    text = page(results, [], Ledger({}), Limits(), untried=7)
    assert "7 types were not tried yet. Of 3 types 2 build and run (at least 350 are asked for): " in text
    assert "**1 exact / 1 refused / 0 wrong**" in text
    assert "| b | refused | 0 |  |  |  | 0.0 | TraceError: no \\| graph |" in text
    assert "| c | ImportError: natten |" in text


def wait(name):
    held = torch.ones(int(2e9) // 4) if name == "large" else None
    if name == "large":
        time.sleep(600)
    while name == "long":
        pass
    del held
    return TypeResult(name)


@pytest.mark.slow
def test_a_call_that_takes_too_long_or_holds_too_much_is_ended():
    def lost(name, reason):
        return vars(TypeResult(name, failure="limit", reason=reason))

    limits = Limits(seconds=5.0, megabytes=1500.0)
    outcomes = dict(each(["short", "long", "large"], wait, limits, jobs=3, lost=lost, preload=["zoo.type_result"]))
    assert outcomes["short"]["failure"] == ""
    assert outcomes["long"]["reason"] == "took more than 5 s"
    assert outcomes["large"]["reason"] == "held more than 1500 MB"
