"""Small models of other libraries, with lively parameters: no zero behind which an error hides."""

from functools import cache

import pytest
import torch

from book_networks import LINEAR, batch, features
from networks import F64, lively, normal
from unbraid.form import trace

_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {
    "GPT2": {"n_layer": 2, "n_embd": 16, "n_head": 2},
    "Llama": {**_SMALL, "num_key_value_heads": 1},
    "Bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "Gemma2": {**_SMALL, "num_key_value_heads": 1, "head_dim": 8},
}
IMAGES = {
    "resnet18": (64, {}),
    "resnet50": (64, {}),
    "vit_tiny_patch16_224": (32, {"depth": 3, "img_size": 32, "embed_dim": 24, "num_heads": 2}),
    "convnext_atto": (64, {}),
}


@cache
def real(name: str, dtype: torch.dtype = F64):
    """A model, its arguments, its form, and a target that fits its output."""
    if name in IMAGES:
        pytest.importorskip("torchvision_stub")
        timm = pytest.importorskip("timm")
        size, options = IMAGES[name]
        model = lively(timm.create_model(name, num_classes=5, **options), scale=0.1, dtype=dtype)
        args, kwargs, target = (normal(2, 3, size, size, dtype=dtype),), {}, 1
    elif name in LINEAR:
        model = features(order=name).to(dtype)
        args, kwargs, target = (batch(model).to(dtype),), {}, 1
    else:
        pytest.importorskip("torchvision_stub")
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, f"{name}Config")(vocab_size=30, bos_token_id=1, eos_token_id=2, **TEXT[name])
        head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
        model = lively(getattr(transformers, head)(config), scale=0.3, dtype=dtype)
        ids = torch.randint(3, 30, (2, 5), generator=torch.Generator().manual_seed(0))
        args, kwargs, target = (), {"input_ids": ids, "use_cache": False}, (3, 7)
    return model, args, kwargs, trace(model, args, kwargs), target


def value(model, args, kwargs, target):
    """The target by the model itself."""
    with torch.no_grad():
        output = model(*args, **kwargs)
    output = output if isinstance(output, torch.Tensor) else output.logits
    return output[:, target] if isinstance(target, int) else output[:, target[0], target[1]]
