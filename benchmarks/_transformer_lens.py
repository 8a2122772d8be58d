"""The same attribution by TransformerLens 4, which runs the model with a hook at every activation.

    pip install --no-deps transformer-lens        and what its import then asks for: it wants other versions of torch

Its bridge takes GPT-2 as transformers builds it, with random weights; norms are folded and weights centred, as its
own logit attribution expects. Nothing is downloaded: configuration and a tokenizer of two words lie in a folder.
"""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch


def installed() -> bool:
    return find_spec("transformer_lens") is not None


def attribution(ids: torch.Tensor, token: int) -> Callable[[], Any]:
    """What caches a run, takes the stream apart, and attributes the last position's score of a token."""
    from transformer_lens.model_bridge import TransformerBridge

    with tempfile.TemporaryDirectory() as folder:
        bridge = TransformerBridge.boot_transformers(folder, hf_model=_model(folder), tokenizer=_tokens(folder))
        bridge.enable_compatibility_mode()

    def work() -> Any:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids)
            stack, _ = cache.decompose_resid(layer=-1, return_labels=True)
            return cache.logit_attrs(stack[:, :, -1], tokens=token, pos_slice=-1)

    return work


def _model(folder: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(architectures=["GPT2LMHeadModel"])
    config.save_pretrained(folder)
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()


def _tokens(folder: str) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "<e>": 1}, unk_token="a"))
    special = {"bos_token": "<e>", "eos_token": "<e>", "pad_token": "<e>", "unk_token": "a"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
