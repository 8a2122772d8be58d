"""`unbraid trace` on models of other libraries, with random weights."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import torchvision_stub  # noqa: F401
from cli._run import invoke

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")

GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 16, "n_head": 2,
        "vocab_size": 30, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 4,
         "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
         "vocab_size": 128256}  # fmt: skip
T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 16, "d_kv": 8, "d_ff": 32,
      "num_layers": 1, "num_heads": 2, "vocab_size": 30, "decoder_start_token_id": 0}  # fmt: skip


def traced(*arguments):
    result = invoke("trace", *arguments, "--json")
    assert result.status == 0, result.stderr
    return json.loads(result.stdout)


def config(folder, facts):
    path = folder / "config.json"
    path.write_text(json.dumps(facts))
    return f"hf:{path}"


def test_timm_by_name():
    found = traced("timm:resnet10t", "--input-shape", "2,3,64,64")
    assert [block["skip"] for block in found["blocks"]].count("projection") == 3
    assert len(found["blocks"]) == 4
    assert found["error"] <= 1e-5
    assert found["blocks"][0]["where"].startswith("resnet.py:")


def test_torchvision_by_name():
    found = traced("torchvision:resnet18", "--input-shape", "2,3,64,64")
    assert [block["name"] for block in found["blocks"]] == [f"layer{k}.{j}" for k in range(1, 5) for j in range(2)]


def test_a_name_that_is_not_there_is_met_with_others():
    result = invoke("trace", "timm:resnet10x")
    assert (result.status, result.stdout) == (2, "")
    assert 'timm has no model "resnet10x". Did you mean resnet10t' in result.stderr
    assert invoke("trace", "torchvision:resnet19").stderr.count("Did you mean") == 1


def test_transformers_by_configuration(tmp_path):
    """The cache is switched off without asking, and an encoder-decoder gets two inputs."""
    found = traced(config(tmp_path, GPT2))
    assert [block["branches"] for block in found["blocks"]] == [
        [f"transformer.h.{k}.{part}"] for k in range(2) for part in ("attn", "mlp")
    ]
    assert len(traced(config(tmp_path, T5))["sources"]) == 2


def test_the_structure_of_wide_layers_takes_no_memory_for_weights(tmp_path):
    """Four of the eighty layers of a 70-billion-parameter Llama: 5.5 billion parameters."""
    found = traced(config(tmp_path, LLAMA), "--meta")
    assert len(found["blocks"]) == 8
    assert found["error"] is None  # nothing was run
    assert found["blocks"][1]["parameters"] == 3 * 8192 * 28672 + 8192
    refused = invoke("trace", config(tmp_path, LLAMA), "--meta", "--weights", "w.safetensors")
    assert (refused.status, refused.stdout) == (2, "")
    assert "--meta traces the structure alone; it takes no weights." in refused.stderr


def test_transformers_from_a_folder_with_weights(tmp_path):
    made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    made.save_pretrained(tmp_path)
    found = traced(f"hf:{tmp_path}")
    assert len(found["blocks"]) == 4
    assert found["error"] <= 1e-5


@pytest.mark.parametrize(("text", "message"), [("{", "is no configuration"), ('{"model_type": "none"}', "is no conf")])
def test_what_is_no_configuration_is_said(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    result = invoke("trace", f"hf:{tmp_path}/config.json")
    assert (result.status, result.stdout) == (2, "")
    assert message in result.stderr


def test_weights_of_a_file_are_loaded_and_checked(tmp_path):
    model = timm.create_model("resnet10t")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    options = ("timm:resnet10t", "--input-shape", "2,3,64,64", "--weights")
    assert len(traced(*options, f"{tmp_path}/w.safetensors")["blocks"]) == 4
    torch.save({"other": torch.zeros(1)}, tmp_path / "w.pt")
    result = invoke("trace", *options, f"{tmp_path}/w.pt")
    assert (result.status, result.stdout) == (2, "")
    assert "other" in result.stderr


class Runs:
    """A pickle that writes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_weights_that_would_run_code_are_refused(tmp_path):
    torch.save({"a": Runs(tmp_path / "it ran")}, tmp_path / "w.pt")
    result = invoke("trace", "timm:resnet10t", "--weights", f"{tmp_path}/w.pt")
    assert (result.status, result.stdout) == (2, "")
    assert "reading it could run code: it was not read" in result.stderr
    assert not (tmp_path / "it ran").exists()


def test_the_graph_is_drawn_and_the_tracer_chosen(tmp_path):
    result = invoke("trace", config(tmp_path, GPT2), "--graph", "--tracer", "dispatch")
    assert result.status == 0, result.stderr
    for name in ("transformer.h.0.attn", "transformer.h.1.mlp"):
        assert name in result.stdout
    assert traced(config(tmp_path, GPT2), "--tracer", "dispatch")["tracer"] == "dispatch"


def sections_of(folder):
    return {s["title"]: s for s in json.loads((folder / "report.json").read_text())["sections"]}


def test_a_report_on_a_language_model_and_tokens(tmp_path):
    """The loss of the next token, as the model's own library computes it."""
    model = config(tmp_path, GPT2)
    tokens = torch.randint(30, (200,), generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "tokens.npy", tokens.numpy())
    data = ("--data", str(tmp_path / "tokens.npy"))
    result = invoke("report", model, *data, "-o", str(tmp_path / "a.html"))
    assert result.status == 0, result.stderr
    said = sections_of(tmp_path)
    whole = float(re.search(r"from ([\d.]+);", said["Lesions"]["finding"]).group(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        same = transformers.GPT2LMHeadModel(transformers.AutoConfig.for_model(**GPT2)).eval()
    rows = tokens[: 200 // 65 * 65].reshape(-1, 65)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(same(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
    assert whole == pytest.approx(float(expected), rel=1e-3)
    assert "3 pieces of 64 tokens" in json.loads((tmp_path / "report.json").read_text())["summary"]

    np.save(tmp_path / "tokens.npy", tokens.numpy() + 1)
    result = invoke("report", model, *data, "-o", str(tmp_path / "b.html"))
    assert result.status == 2
    assert "knows tokens below 30; the largest is 30" in result.stderr
    (tmp_path / "text.txt").write_text("a text")
    result = invoke("report", model, "--data", str(tmp_path / "text.txt"), "-o", str(tmp_path / "b.html"))
    assert result.status == 2
    assert "needs the tokenizer" in result.stderr


@pytest.mark.slow
def test_a_report_on_a_vision_model_without_data(tmp_path):
    result = invoke("report", "timm:resnet10t", "--input-shape", "2,3,64,64", "-o", str(tmp_path / "a.html"))
    assert result.status == 0, result.stderr
    said = sections_of(tmp_path)
    assert "4 residual blocks and 16 paths" in said["The network"]["finding"]
    assert "all 16 paths" in said["Single paths"]["finding"]
