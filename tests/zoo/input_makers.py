"""What an input of a name looks like: a table of names, each with one spelling or several."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.config_sizes import Sizes
from zoo.entry import integers, normal

BATCH, TEXT, ANSWER = 2, 7, 5


def text(sizes: Sizes, length: int, seed: int = 0, placeholder: int | None = None, count: int = 0) -> Tensor:
    """Ids that are no special ones, with so many placeholders after the first two."""
    limit = min(sizes.get("vocab_size", "text_vocab_size", "n_vocab", otherwise=60), 60)
    plain = [one for one in range(limit) if one not in sizes.special and one > 2] or list(range(limit))
    ids = torch.tensor(plain)[integers(BATCH, length, low=0, high=len(plain), seed=seed)]
    if placeholder is None or not count:
        return ids
    return torch.cat([ids[:, :2], torch.full((BATCH, count), placeholder), ids[:, 2:]], 1)


def patches(sizes: Sizes) -> Tensor:
    """Images as the model's own processor would hand them over: one row per patch, 4 by 4 of them an image."""
    own = sizes.vision()
    patch, channels = (
        own.get("patch_size", otherwise=8),
        own.get("num_channels", "in_channels", "in_chans", otherwise=3),
    )
    return normal(BATCH * 16, channels * own.get("temporal_patch_size", "patch_temporal", otherwise=1) * patch * patch)


def _images(sizes: Sizes, *before: int) -> Tensor:
    return normal(BATCH, *before, *sizes.image)


def _features(sizes: Sizes) -> Tensor:
    """A spectrogram: mel bins by time, as Whisper has it."""
    length = 2 * sizes.get("max_source_positions", otherwise=20)
    return normal(BATCH, sizes.get("num_mel_bins", "n_mels", "feature_size", otherwise=80), min(length, 512))


def _frames(sizes: Sizes) -> Tensor:
    """A spectrogram: time by mel bins, as most others have it."""
    names = (
        "feature_projection_input_dim",
        "num_mel_bins",
        "feature_size",
        "input_feat_per_channel",
        "feat_extract_input_size",
        "input_dim",
        "input_size",
        "n_mels",
    )
    return normal(BATCH, 64, sizes.get(*names, otherwise=80))


def _grid(sizes: Sizes) -> Tensor:
    return torch.tensor([[1, 4, 4]] * BATCH)


WAVE = 3840
Maker = Callable[[Sizes], Any]
# As long as a spectrogram of either spelling.
_MASKS: tuple[Maker, ...] = (
    lambda s: torch.ones(BATCH, _features(s).shape[-1], dtype=torch.long),
    lambda s: torch.ones(BATCH, _frames(s).shape[1], dtype=torch.long),
)
MAKERS: dict[str, tuple[Maker, ...]] = {
    "input_ids": (lambda s: text(s, TEXT),),
    "decoder_input_ids": (lambda s: text(s, ANSWER, seed=1),),
    "inputs_embeds": (lambda s: normal(BATCH, TEXT, s.get("hidden_size", "d_model", otherwise=64)),),
    "pixel_values": (
        _images,
        patches,
        lambda s: _images(s, s.get("num_frames", otherwise=2)),
        lambda s: _images(s, 1),
        lambda s: normal(BATCH, s.image[0], 64, 64),
        lambda s: normal(BATCH, s.image[0], 128, 128),
        lambda s: normal(BATCH, 16, s.image[0] * s.vision().get("patch_size", otherwise=8) ** 2),
    ),
    "pixel_values_videos": (
        lambda s: _images(s, s.get("num_frames", "frames_per_clip", otherwise=2)),
        lambda s: _images(s, 2),
    ),
    "hidden_states": (patches,),
    "grid_thw": (_grid,),
    "image_grid_thw": (_grid,),
    "image_grid_hws": (lambda s: torch.tensor([[4, 4]] * BATCH),),
    "spatial_shapes": (lambda s: torch.tensor([[4, 4]] * BATCH),),
    "image_sizes": (lambda s: torch.tensor([list(s.image[1:])] * BATCH),),
    "target_sizes": (lambda s: torch.tensor([[4, 4]] * BATCH),),
    "pixel_attention_mask": (lambda s: torch.ones(BATCH, 16, dtype=torch.long),),
    "merge_sizes": (lambda s: torch.tensor([1] * BATCH),),
    "image_merge_sizes": (lambda s: torch.tensor([1] * BATCH),),
    "input_features": (_features, _frames, lambda s: normal(BATCH, 64, s.get("num_mel_bins", otherwise=80) * 2)),
    "input_features_mask": _MASKS,
    "feature_attention_mask": _MASKS,
    "input_values": (
        lambda s: normal(BATCH, WAVE),
        lambda s: normal(BATCH, 1, WAVE),
        _frames,
        lambda s: normal(BATCH, 1, 64, 16),
    ),
    "latents": (lambda s: normal(BATCH, s.get("hidden_size", "latent_dim", otherwise=64), 8),),
    "bbox": (lambda s: integers(BATCH, TEXT, 4).sort(-1).values,),
    "past_values": (
        lambda s: normal(BATCH, s.get("context_length", otherwise=32), s.get("num_input_channels", otherwise=1)),
        lambda s: normal(BATCH, s.get("context_length", otherwise=32)),
    ),
}  # fmt: skip
