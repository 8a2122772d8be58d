"""The networks of diffusers, small: U-Nets, autoencoders and diffusion transformers, with inputs.

They live in the environment of `more_models.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from zoo.entry import Made, integers, lively, normal

Settings = Mapping[str, Any]
Inputs = Callable[[], dict[str, Any]]

_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
_PICTURE = {"sample_size": 8, "patch_size": 2, "in_channels": 4}
_LEVELS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
_CODER = {
    **_LEVELS,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "sample_size": 16,
}


def _times() -> torch.Tensor:
    return torch.tensor([3, 5])


def _captioned() -> dict[str, Any]:
    return {
        "hidden_states": normal(2, 4, 8, 8),
        "encoder_hidden_states": normal(2, 5, 16, seed=1),
        "timestep": _times(),
    }


MODELS: Mapping[str, tuple[Settings, Inputs]] = {
    "UNet2DModel": (
        {
            **_LEVELS,
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
        },
        lambda: {"sample": normal(2, 3, 8, 8), "timestep": _times()},
    ),
    "UNet2DConditionModel": (
        {
            **_LEVELS,
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
            "cross_attention_dim": 8,
        },
        lambda: {
            "sample": normal(2, 4, 8, 8),
            "timestep": _times(),
            "encoder_hidden_states": normal(2, 5, 8, seed=1),
        },
    ),
    "AutoencoderKL": (_CODER, lambda: {"sample": normal(2, 3, 16, 16)}),
    "VQModel": (
        {**_CODER, "num_vq_embeddings": 16, "vq_embed_dim": 4},
        lambda: {"sample": normal(2, 3, 16, 16)},
    ),
    "DiTTransformer2DModel": (
        {**_HEADS, **_PICTURE, "out_channels": 8, "num_embeds_ada_norm": 10, "norm_num_groups": 4},
        lambda: {"hidden_states": normal(2, 4, 8, 8), "timestep": _times(), "class_labels": integers(2, low=0, high=9)},
    ),
    "SD3Transformer2DModel": (
        {
            **_HEADS,
            **_PICTURE,
            "joint_attention_dim": 16,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 16,
            "out_channels": 4,
            "pos_embed_max_size": 8,
        },
        lambda: {**_captioned(), "pooled_projections": normal(2, 16, seed=2)},
    ),
    "FluxTransformer2DModel": (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "patch_size": 1,
            "in_channels": 4,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (4, 6, 6),
        },
        lambda: {
            "hidden_states": normal(2, 16, 4),
            "encoder_hidden_states": normal(2, 5, 16, seed=1),
            "pooled_projections": normal(2, 16, seed=2),
            "timestep": torch.tensor([0.3, 0.5]),
            "img_ids": integers(16, 3, low=0, high=4).float(),
            "txt_ids": torch.zeros(5, 3),
        },
    ),
    "PixArtTransformer2DModel": (
        {
            **_HEADS,
            **_PICTURE,
            "out_channels": 8,
            "cross_attention_dim": 16,
            "caption_channels": 16,
            "norm_num_groups": 4,
            "use_additional_conditions": False,
        },
        lambda: {**_captioned(), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
    ),
}


def names() -> list[str]:
    """All of them."""
    return list(MODELS)


def make(name: str) -> Made:
    """A network with random weights, and inputs of two examples."""
    import diffusers

    settings, inputs = MODELS[name]
    torch.manual_seed(0)
    return Made(lively(getattr(diffusers, name)(**settings)), (), {**inputs(), "return_dict": False})
