"""Any configuration of transformers made small: a few layers, narrow, few experts, a short vocabulary.

No model is named here. `Small` reads a configuration with its default values and makes another of the same class, in
which each number is made smaller by what its name says that it is: a count of layers becomes 2, a width 64, a head's
width 16, and so on, in nested configurations likewise. As every width becomes the same number, those that must agree
do. Where this builds no model that runs, `filled` gives values to what a default leaves out, `eighth` divides each
width by 8 instead, and `shallow` leaves widths as they are.

Lists that say something of each layer keep one layer of each kind that they name, so that no kind of layer is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo import setting_names as setting
from zoo.kept_layers import count_of_layers, layers_to_keep, settings_of, value_of

VOCABULARY = 128
FIRST_SPECIAL = 64  # ids that a default configuration has beyond the vocabulary come down to those from here on
WIDTH, WIDER, HEAD_WIDTH, HEADS = 64, 128, 16, 4

MANNERS = ("narrow", "filled", "eighth", "shallow")
# Where a default configuration leaves out what its model needs.
FILLED = {"num_key_value_heads": HEADS // 2, "head_dim": HEAD_WIDTH, "vocab_size": VOCABULARY, "num_experts": 4,
          "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
          "moe_intermediate_size": WIDTH, "top_k_experts": 2}  # fmt: skip


@dataclass
class Small:
    """Makes configurations small, in one of three manners.

    Attributes:
        manner: one of MANNERS.
        exceptions: values by name that hold whatever the rules say; a dotted name is one of a nested configuration.
        tokens: the special ids as they became.
    """

    manner: str = "narrow"
    exceptions: Mapping[str, Any] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)

    def __call__(self, config: Any, path: str = "") -> Any:
        """A small configuration of the same class."""
        layers = layers_to_keep(config)
        settings = {name: self._smaller(config, name, value, layers, path) for name, value in settings_of(config)}
        settings |= self._per_layer(config, layers)
        if self.manner == "filled":
            settings |= {name: value for name, value in FILLED.items() if name in settings and settings[name] is None}
        own = {name: value for name, value in self.exceptions.items() if name.startswith(path)}
        settings |= {
            name.removeprefix(path): value for name, value in own.items() if "." not in name.removeprefix(path)
        }
        return _as_backbone(type(config)(**settings), config)

    def _per_layer(self, config: Any, layers: list[int] | None) -> dict[str, Any]:
        """What single layers have of their own, for those that are kept."""
        own = {}
        for new, old in enumerate(layers or ()):
            values = vars(config).get("_heterogeneity_spec") and config._heterogeneity_spec.per_layer_overrides.get(old)
            if values:
                own[new] = {name: self._smaller(config, name, value, None, "") for name, value in values.items()}
        return {"per_layer_config": own} if own else {}

    def _smaller(self, config: Any, name: str, value: Any, layers: list[int] | None, path: str) -> Any:
        if (
            value is None
            and (nested := getattr(config, "sub_configs", {}).get(name))
            and hasattr(nested, "__dataclass_fields__")
        ):
            value = nested()
        if hasattr(value, "model_type"):
            return self(value, f"{path}{name}.")
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return self._number(config, name, value, layers)
        if isinstance(value, list | tuple):
            return type(value)(self._list(config, name, list(value), layers))
        if isinstance(value, dict) and any(isinstance(inner, list) for inner in value.values()):
            return {key: _sections(key, inner, self.manner) for key, inner in value.items()}
        return value

    def _number(self, config: Any, name: str, value: int, layers: list[int] | None) -> int:
        if setting.TOKEN.fullmatch(name):
            return self._token(value)
        if setting.VOCABULARY.fullmatch(name):
            return min(value, VOCABULARY)
        if value > 1 and value == _count_of_stages(config):
            return value
        if setting.LAYERS.fullmatch(name) and not setting.NO_LAYERS.fullmatch(name):
            return len(layers) if layers and value == count_of_layers(config) else min(value, 2)
        if name in {"n_groups", "mamba_n_groups"}:
            return min(value, 2)
        if name == "upsample_groups":
            return value if self.manner == "shallow" else min(value, WIDTH)
        if setting.CHOSEN.fullmatch(name):
            return min(value, 2)
        if setting.EXPERTS.fullmatch(name):
            return min(value, 4)
        if setting.EDGE.fullmatch(name):
            return min(value, _edge(config))
        if setting.PATCH.fullmatch(name):
            return 8 if value > 8 else value
        if name.startswith("max_") and "position" in name:
            return min(value, 128)
        if name in {"num_queries", "two_stage_num_proposals"}:
            return min(value, 8)
        if name in {"num_key_value_groups", "n_group", "topk_group", "num_expert_group"}:
            return 1
        return self._width(config, name, value)

    def _width(self, config: Any, name: str, value: int) -> int:
        if self.manner == "shallow":
            return value
        if self.manner == "eighth":
            wide = value >= 64 and (
                setting.WIDTH.fullmatch(name) or setting.WIDER.fullmatch(name) or setting.HEAD_WIDTH.fullmatch(name)
            )
            return value // 8 if wide and value % 8 == 0 and not setting.NO_WIDTH.fullmatch(name) else value
        if setting.GROUPED_HEADS.fullmatch(name):
            return _grouped(config, value)
        if setting.HEADS.fullmatch(name):
            return min(value, HEADS)
        if setting.HEAD_WIDTH.fullmatch(name):
            return min(value, HEAD_WIDTH)
        if value < 32 or setting.NO_WIDTH.fullmatch(name):
            return value
        if setting.WIDER.fullmatch(name):
            return min(value, WIDER)
        return min(value, WIDTH) if setting.WIDTH.fullmatch(name) else value

    def _token(self, value: int) -> int:
        if value < FIRST_SPECIAL:
            return value
        return self.tokens.setdefault(value, FIRST_SPECIAL + len(self.tokens))

    def _list(self, config: Any, name: str, value: list[Any], layers: list[int] | None) -> list[Any]:
        total = count_of_layers(config)
        numbers = bool(value) and all(type(item) is int for item in value)
        if layers and len(value) == total:
            return [value[index] for index in layers]
        if setting.TOKEN.fullmatch(name) and numbers:
            return [self._token(item) for item in value]
        if numbers and layers and setting.BY_LAYER_INDEX.fullmatch(name) and 0 <= max(value) <= (total or 0):
            return [min(item, index + max(value) // (total or 1)) for index, item in enumerate(value[: len(layers)])]
        if numbers and setting.EDGE.fullmatch(name):
            return [min(item, _edge(config)) for item in value]
        if numbers and setting.LAYERS.fullmatch(name):
            return [min(item, 1 if len(value) > 2 else 2) for item in value]
        if name == "mrope_section":
            return _sections(name, value, self.manner)
        if numbers and setting.HEADS.fullmatch(name) and value_of(config, "embed_dim"):
            return [2 ** (index + 1) for index in range(len(value))] if value[0] % 2 else value
        if numbers and min(value) >= 32 and setting.WIDTH.fullmatch(name) and not setting.NO_WIDTH.fullmatch(name):
            return _scaled(value) if self.manner != "shallow" else value
        return value


def _as_backbone(small: Any, config: Any) -> Any:
    """With as many outputs as the whole one has, where it has several."""
    asked = value_of(config, "out_indices")
    stages = value_of(small, "stage_names")
    if asked and stages and len(asked) > 1 and hasattr(small, "set_output_features_output_indices"):
        kept = list(asked) if max(asked) < len(stages) else list(range(len(stages)))[-len(asked) :]
        small.set_output_features_output_indices(out_features=None, out_indices=kept)
    return small


def _count_of_stages(config: Any) -> int:
    depths = value_of(config, "depths")
    return len(depths) if isinstance(depths, list | tuple) else 0


def _grouped(config: Any, value: int) -> int:
    """As many as there are heads, or half as many."""
    heads = next(
        (value_of(config, name) for name in ("num_attention_heads", "n_heads", "n_head") if value_of(config, name)),
        value,
    )
    if not isinstance(heads, int) or value == heads:
        return min(value, HEADS)
    return min(value, HEADS // 2)


def _edge(config: Any) -> int:
    """Of an image: 32 where patches of 8 cover it, 64 where it is read by convolutions."""
    patch = getattr(config, "patch_size", None)
    return 32 if isinstance(patch, int) and patch > 4 else 64


def _scaled(value: list[int]) -> list[int]:
    """Divided by 8, or by less where they would not stay whole multiples of 4."""
    for by in (8, 4, 2):
        if all(item % (4 * by) == 0 for item in value):
            return [item // by for item in value]
    return value


def _sections(name: str, value: Any, manner: str) -> Any:
    """Of half a head's width, as rotary embeddings over time, height and width share it."""
    if "section" not in name or not isinstance(value, list) or manner == "shallow":
        return value
    half = sum(value) // 8 if manner == "eighth" else HEAD_WIDTH // 2
    shares = [max(1, item * half // sum(value)) for item in value]
    return [*shares[:-1], half - sum(shares[:-1])]
