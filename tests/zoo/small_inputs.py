"""Inputs for any model of transformers, from the names and the order in its forward's signature.

What an input of a name looks like stands in a table, in sizes that are read from the model's configuration. How many
placeholders for an image or a sound a text must hold is not to be read there; a model says it when it is called with
none, or one of a few numbers holds. So there are several candidates, richest first, and the first that the model takes
is its input. Batches have two examples.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from zoo.entry import integers, normal

BATCH, TEXT, ANSWER = 2, 7, 5
PLACEHOLDERS = (16, 4, 1, 17, 64, 8, 2, 9, 32, 5, 65, 36, 3, 6, 10, 12, 20, 25, 40, 49, 50, 100)
_NUMBER = re.compile(r"features:? ?\(?(\d+)")


@dataclass(frozen=True)
class Sizes:
    """The sizes that a configuration, or one nested in it, names."""

    config: Any

    def get(self, *names: str, otherwise: Any = None) -> Any:
        """The first of these names that has a value, nested configurations last."""
        for name in names:
            for config in self.configs():
                value = vars(config).get(name)
                if value is not None and not isinstance(value, bool):
                    return value
        return otherwise

    def configs(self) -> list[Any]:
        """This configuration and all those nested in it."""
        found, waiting = [], [self.config]
        while waiting:
            config = waiting.pop(0)
            found.append(config)
            waiting += [value for value in vars(config).values() if hasattr(value, "model_type")]
        return found

    def vision(self) -> "Sizes":
        """Those of the part that reads images."""
        for config in self.configs():
            if any(vars(config).get(name) for name in ("patch_size", "image_size")):
                return Sizes(config)
        return self

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        own = self.vision()
        edge = own.get("image_size", "img_size", "input_image_size", "pretrain_image_size", "resolution", otherwise=64)
        height, width = edge if isinstance(edge, list | tuple) else (edge, edge)
        return own.get("num_channels", "in_channels", "in_chans", otherwise=3), height, width

    @property
    def placeholders(self) -> list[int]:
        """The ids that stand for an image or a sound in a text."""
        names = ("image_token_id", "image_token_index", "audio_token_id", "audio_token_index", "image_patch_id",
                 "image_start_token_id", "media_placeholder_token_id", "video_token_id")  # fmt: skip
        ids = [self.get(name) for name in names]
        return [one for one in ids if isinstance(one, int) and one >= 0]

    @property
    def special(self) -> set[int]:
        """All special ids."""
        values = [
            value for config in self.configs() for name, value in vars(config).items() if re.search("_(id|index|idx)s?$", name)
        ]
        flat = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
        return {one for one in flat if isinstance(one, int)}


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
    patch, channels = own.get("patch_size", otherwise=8), own.get("num_channels", "in_channels", "in_chans", otherwise=3)
    return normal(BATCH * 16, channels * own.get("temporal_patch_size", otherwise=1) * patch * patch)


def _images(sizes: Sizes, *before: int) -> Tensor:
    return normal(BATCH, *before, *sizes.image)


def _features(sizes: Sizes) -> Tensor:
    """A spectrogram: mel bins by time, as Whisper has it."""
    length = 2 * sizes.get("max_source_positions", otherwise=20)
    return normal(BATCH, sizes.get("num_mel_bins", "n_mels", "feature_size", otherwise=80), min(length, 512))


def _frames(sizes: Sizes) -> Tensor:
    """A spectrogram: time by mel bins, as most others have it."""
    names = ("num_mel_bins", "feature_size", "input_feat_per_channel", "feat_extract_input_size", "input_dim", "input_size", "n_mels")
    return normal(BATCH, 64, sizes.get(*names, otherwise=80))


def _grid(sizes: Sizes) -> Tensor:
    return torch.tensor([[1, 4, 4]] * BATCH)


WAVE = 1600
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
    "pixel_values_videos": (lambda s: _images(s, s.get("num_frames", "frames_per_clip", otherwise=2)), lambda s: _images(s, 2)),
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
    "past_values": (lambda s: normal(BATCH, s.get("context_length", otherwise=32), s.get("num_input_channels", otherwise=1)),
                    lambda s: normal(BATCH, s.get("context_length", otherwise=32))),
}  # fmt: skip
# Beside what a forward asks for: these make a model with several kinds of input run all of itself.
OFFERED = ("input_ids", "pixel_values", "input_features", "input_values", "decoder_input_ids", "bbox", "image_grid_thw",
           "image_sizes", "spatial_shapes", "image_merge_sizes", "grid_thw", "image_grid_hws")  # fmt: skip
DEBUG = []
_FEATURE_MASKS = ("input_features_mask", "feature_attention_mask")
SWITCHES = {"use_cache": False, "use_mems": False}


def candidates(model: nn.Module, exceptions: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Keyword inputs for a model, richest first."""
    sizes = Sizes(model.config)
    parameters = inspect.signature(model.forward).parameters
    needed = [name for name, one in parameters.items() if one.default is one.empty and one.kind not in (2, 4)]
    main = model.main_input_name
    main = main if isinstance(main, str) else main[0]
    switches = {name: value for name, value in SWITCHES.items() if name in parameters}
    special = dict(exceptions or {})
    wanted = [name for name in OFFERED if name in parameters]
    if "input_ids" in wanted and "decoder_input_ids" in wanted and main != "input_ids":
        wanted.remove("input_ids")
    sets = [wanted, ["input_ids", "pixel_values"], ["input_ids", "input_features", *_FEATURE_MASKS],
            ["input_features", *_FEATURE_MASKS], [main, "decoder_input_ids"], [main], ["input_ids"], ["pixel_values"]]  # fmt: skip
    tried = []
    for names in sets:
        chosen = [name for name in dict.fromkeys([*names, *needed]) if name in parameters]
        if chosen in tried or any(name not in MAKERS and name not in special for name in chosen):
            continue
        tried.append(chosen)
        for kwargs in _combined([name for name in chosen if name not in special], sizes):
            yield {**kwargs, **switches, **special}


def _combined(names: list[str], sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The first spelling of each input, then every other combination, nearest to the first ones first."""
    spellings = [[make(sizes) for make in MAKERS[name]] for name in names]
    for chosen in sorted(product(*(range(len(made)) for made in spellings)), key=sum):
        yield {name: made[index] for name, made, index in zip(names, spellings, chosen, strict=True)}


def fit(model: nn.Module, exceptions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The first inputs that a model takes.

    Raises:
        ValueError: it takes none; what it said to each.
    """
    sizes, said = Sizes(model.config), {}
    DEBUG.clear()
    parameters = inspect.signature(model.forward).parameters
    for kwargs in candidates(model, exceptions):
        error = _refusal(model, kwargs)
        if error and "input_ids" in kwargs and sizes.placeholders and len(kwargs) > 1:
            for filled in _filled(kwargs, sizes, error, "mm_token_type_ids" in parameters):
                if not _refusal(model, filled):
                    return filled
        if not error:
            return kwargs
        said[error] = None
        DEBUG.append(({k: tuple(getattr(v, "shape", ())) for k, v in kwargs.items()}, error))
    raise ValueError(" / ".join(said) or "no input of these names is known")


def _filled(kwargs: dict[str, Any], sizes: Sizes, error: str, typed: bool) -> Iterator[dict[str, Any]]:
    """The text with so many placeholders of one kind, and, where a model asks for it, which tokens they are."""
    number = _NUMBER.search(error)
    counts = [int(number[1]) // BATCH, int(number[1]) // BATCH // 64] if number else []
    for placeholder in sizes.placeholders:
        for count in dict.fromkeys([*counts, *PLACEHOLDERS]):
            if 0 < count <= 256:
                ids = text(sizes, TEXT, placeholder=placeholder, count=count)
                yield {**kwargs, "input_ids": ids, **({"mm_token_type_ids": (ids == placeholder).long()} if typed else {})}


def _refusal(model: nn.Module, kwargs: Mapping[str, Any]) -> str:
    """What a model says against its inputs; empty where it takes them."""
    try:
        with torch.no_grad():
            model(**kwargs)
    except Exception as error:  # whatever it is: the next candidate may do
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return ""
