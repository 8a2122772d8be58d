"""The sizes and the special ids that a configuration names, nested ones included."""

import re
from dataclasses import dataclass
from typing import Any


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
            value
            for config in self.configs()
            for name, value in vars(config).items()
            if re.search("_(id|index|idx)s?$", name)
        ]
        flat = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
        return {one for one in flat if isinstance(one, int)}
