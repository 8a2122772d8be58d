"""Small models with lists of layers, in float64, and their forms; made once."""

import copy
from functools import cache

import pytest
import torch

from networks import F64, lively, normal
from unbraid.form import trace

# As many heads as layers, and more numbers that are 4: the right entry of a configuration must be found among them.
LAYERS = 4
_STACK = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 32}
TEXT = {
    "GPT2": ("GPT2LMHeadModel", {"n_layer": LAYERS, "n_embd": 16, "n_head": 4}),
    "GPT2 scaled": (
        "GPT2LMHeadModel",
        {"n_layer": LAYERS, "n_embd": 16, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
    ),
    "Llama": ("LlamaForCausalLM", {**_STACK, "num_key_value_heads": 2}),
    "OPT": (
        "OPTForCausalLM",
        {**_STACK, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 32},
    ),
    "Gemma2": ("Gemma2ForCausalLM", {**_STACK, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 64}),
    "GPTNeo": (
        "GPTNeoForCausalLM",
        {
            "hidden_size": 16,
            "num_layers": LAYERS,
            "num_heads": 4,
            "attention_types": [[["global", "global", "local", "local"], 1]],
            "window_size": 4,
            "intermediate_size": 32,
            "max_position_embeddings": 32,
        },
    ),
    "GPTJ": ("GPTJForCausalLM", {"n_layer": 2, "n_embd": 16, "n_head": 2, "rotary_dim": 4}),
    "Bert": ("BertModel", {**_STACK, "num_hidden_layers": 2}),
    "T5": (
        "T5ForConditionalGeneration",
        {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    ),
}
IMAGES = {
    "resnet18": (64, {}),
    "vit_tiny_patch16_224": (32, {"depth": 3, "img_size": 32, "embed_dim": 24, "num_heads": 2}),
    "convnext_atto": (64, {}),
}


@cache
def made(name):
    """A model, its arguments and its form."""
    if name in IMAGES:
        pytest.importorskip("torchvision_stub")
        timm = pytest.importorskip("timm")
        size, options = IMAGES[name]
        model = lively(timm.create_model(name, num_classes=5, **options), scale=0.1)
        args, kwargs = (normal(2, 3, size, size),), {}
    else:
        pytest.importorskip("torchvision_stub")
        transformers = pytest.importorskip("transformers")
        head, options = TEXT[name]
        family = getattr(transformers, head)
        config = family.config_class(vocab_size=30, bos_token_id=1, eos_token_id=2, pad_token_id=0, **options)
        config._attn_implementation = "eager"
        model = lively(family(config), scale=0.3, dtype=F64)
        args, kwargs = (), inputs(name)
    return model, args, kwargs, trace(model, args, kwargs)


def inputs(name, batch=2, length=6, seed=0):
    ids = torch.randint(3, 30, (batch, length), generator=torch.Generator().manual_seed(seed))
    if name == "T5":
        return {"input_ids": ids, "decoder_input_ids": ids[:, :4], "use_cache": False}
    return {"input_ids": ids} if name == "Bert" else {"input_ids": ids, "use_cache": False}


def first(output):
    """The tensor that matters."""
    return output if isinstance(output, torch.Tensor) else output[0]


def state(model):
    """What must not change about a model."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    config = copy.deepcopy(model.config.to_dict()) if "config" in vars(model) else None
    return tensors, hooks, config, repr(model)
