"""Any configuration of transformers made small: a few layers, narrow, few experts, a short vocabulary.

No model is named here. `Small` reads a configuration with its default values and makes another of the same class, in
which each number is made smaller by what its name says that it is: a count of layers becomes 2, a width 64, a head's
width 16, and so on, in nested configurations likewise. As every width becomes the same number, those that must agree
do. Where this builds no model, `eighth` divides each width by 8 instead, and `shallow` leaves widths as they are.

Lists that say something of each layer keep one layer of each kind that they name, so that no kind of layer is lost.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from dataclasses import fields as fields_of
from typing import Any

VOCABULARY = 128
FIRST_SPECIAL = 64  # ids that a default configuration has beyond the vocabulary come down to those from here on
WIDTH, WIDER, HEAD_WIDTH, HEADS = 64, 128, 16, 4

MANNERS = ("narrow", "filled", "eighth", "shallow")
# Where a default configuration leaves out what its model needs.
FILLED = {"num_key_value_heads": HEADS // 2, "head_dim": HEAD_WIDTH, "vocab_size": VOCABULARY, "num_experts": 4,
          "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
          "moe_intermediate_size": WIDTH, "top_k_experts": 2}  # fmt: skip

_LAYERS = re.compile(
    r"(.*_)?(num|n|l|x|r)?_?(hidden_|encoder_|decoder_|conv_|dec_)?(layers?|blocks|depth)(_per_(stage|block))?|depths?"
    r"|num_.*_(layers|blocks)|n_layers_.*|(.*_)?num_layers_per_stack|.*_num_(layers|blocks|convs)|num_self_attends_per_block"
)
_NO_LAYERS = re.compile(r".*(feature|insert|max_window|first|start|end|last|conditional|residual|spatial_vision)_?.*layers?"
                        r"|max_depth|min_depth|.*_index|c2f.*|.*_every_.*|num_kv_shared_layers|num_.*_full_attention_layers")  # fmt: skip
_VOCABULARY = re.compile(r"(.*_)?vocab(_size)?(_base|_per_layer_input)?|(.*_)?n_vocab|.*hash_byte_group_vocab|num_hash_buckets")
_TOKEN = re.compile(r".*(token|bos|eos|pad|sep|cls|mask|start|end|newline|patch|user|boi|eoi|boa|eoa)_?(id|ids|index|idx|list)")
_GROUPED_HEADS = re.compile(r"(.*_)?(key_value|kv|num_key|n_kv|kv_n)_?(attention_)?heads|multi_query_group_num")
_HEADS = re.compile(r"(.*_)?(heads?|num_heads)")
_EXPERTS = re.compile(r"(.*_)?(n|num|moe)_?(\w*_)?(experts|expert_num)|zero_expert_num")
_CHOSEN = re.compile(r".*(experts?_per_tok(en)?|top_?k|moe_k)")
_HEAD_WIDTH = re.compile(r"(.*_)?(head_dim|dim_head|head_size|d_head|kv_channels|d_kv|head_width)|head_dim_.*|attention_head_dim")
_WIDER = re.compile(r".*(intermediate|ffn|ff|feed_?forward|mlp|inner|feedforward|fc)_?(hidden_)?(size|dim|width|units)?|d_inner|dff|ffn_.*|.*linear_units")
_WIDTH = re.compile(
    r".*(hidden|embed(ding)?|model|proj(ection)?|output|dim|channels|width|units|rank|embd|features?|size|inplanes|lora|state|feats)"
    r"(_size|_dim|_dims|_channels?|_rank|_in|_out|_global)?|d_\w+"
)
_NO_WIDTH = re.compile(
    r".*(kernel|stride|patch|image|window|chunk|batch|codebook|pool|group|block|hop|frame|sampl|rate|tile|crop|cache"
    r"|merge|num_channels|in_channels|audio_channels|mel|temporal|segment|stack|bucket|context|buffer|upsampl|input_channels"
    r"|type_vocab|local|grid|conv_size|compress|expansion|factor|per_tok|spatial|queue|feature_layer|canvas|input_size"
    r"|feature_size|past|horizon|length).*"
)
_EDGE = re.compile(r"(.*_)?(image|img|pretrain_image|input_image|input|pretrain_img|crop|spec)_size|resolution")
_PATCH = re.compile(r"(.*_)?patch_size")
_LEFT_ALONE = frozenset({"per_layer_config"})
_BY_LAYER_INDEX = re.compile(r"_?(out_|.*_)?(indices|indexes|indexs|layers|layer_ids|layers_ids|idx|stages|index)")


@dataclass
class Small:
    """Makes configurations small, in one of three manners.

    Attributes:
        manner: "narrow", "eighth" or "shallow".
        exceptions: values by name that hold whatever the rules say; a dotted name is one of a nested configuration.
        tokens: the special ids as they became.
    """

    manner: str = "narrow"
    exceptions: Mapping[str, Any] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)

    def __call__(self, config: Any, path: str = "") -> Any:
        """A small configuration of the same class."""
        layers = _layers_to_keep(config)
        settings = {name: self._smaller(config, name, value, layers, path) for name, value in _settings(config)}
        settings |= self._per_layer(config, layers)
        if self.manner == "filled":
            settings |= {name: value for name, value in FILLED.items() if name in settings and settings[name] is None}
        own = {name: value for name, value in self.exceptions.items() if name.startswith(path)}
        settings |= {name.removeprefix(path): value for name, value in own.items() if "." not in name.removeprefix(path)}
        return type(config)(**settings)

    def _per_layer(self, config: Any, layers: list[int] | None) -> dict[str, Any]:
        """What single layers have of their own, for those that are kept."""
        own = {}
        for new, old in enumerate(layers or ()):
            values = vars(config).get("_heterogeneity_spec") and config._heterogeneity_spec.per_layer_overrides.get(old)
            if values:
                own[new] = {name: self._smaller(config, name, value, None, "") for name, value in values.items()}
        return {"per_layer_config": own} if own else {}

    def _smaller(self, config: Any, name: str, value: Any, layers: list[int] | None, path: str) -> Any:
        if value is None and (nested := getattr(config, "sub_configs", {}).get(name)) and hasattr(nested, "__dataclass_fields__"):
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
        if _TOKEN.fullmatch(name):
            return self._token(value)
        if _VOCABULARY.fullmatch(name):
            return min(value, VOCABULARY)
        if _LAYERS.fullmatch(name) and not _NO_LAYERS.fullmatch(name):
            return len(layers) if layers and value == _count_of_layers(config) else min(value, 2)
        if _CHOSEN.fullmatch(name):
            return min(value, 2)
        if _EXPERTS.fullmatch(name):
            return min(value, 4)
        if _EDGE.fullmatch(name):
            return min(value, _edge(config))
        if _PATCH.fullmatch(name):
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
            wide = value >= 64 and (_WIDTH.fullmatch(name) or _WIDER.fullmatch(name) or _HEAD_WIDTH.fullmatch(name))
            return value // 8 if wide and value % 8 == 0 and not _NO_WIDTH.fullmatch(name) else value
        if _GROUPED_HEADS.fullmatch(name):
            return _grouped(config, value)
        if _HEADS.fullmatch(name):
            return min(value, HEADS)
        if _HEAD_WIDTH.fullmatch(name):
            return min(value, HEAD_WIDTH)
        if value < 32 or _NO_WIDTH.fullmatch(name):
            return value
        if _WIDER.fullmatch(name):
            return min(value, WIDER)
        return min(value, WIDTH) if _WIDTH.fullmatch(name) else value

    def _token(self, value: int) -> int:
        if value < FIRST_SPECIAL:
            return value
        return self.tokens.setdefault(value, FIRST_SPECIAL + len(self.tokens))

    def _list(self, config: Any, name: str, value: list[Any], layers: list[int] | None) -> list[Any]:
        total = _count_of_layers(config)
        numbers = bool(value) and all(type(item) is int for item in value)
        if layers and len(value) == total:
            return [value[index] for index in layers]
        if _TOKEN.fullmatch(name) and numbers:
            return [self._token(item) for item in value]
        if numbers and layers and _BY_LAYER_INDEX.fullmatch(name) and 0 <= max(value) <= (total or 0):
            return [min(item, index + max(value) // (total or 1)) for index, item in enumerate(value[: len(layers)])]
        if numbers and _EDGE.fullmatch(name):
            return [min(item, _edge(config)) for item in value]
        if numbers and _LAYERS.fullmatch(name):
            return [min(item, 1 if len(value) > 2 else 2) for item in value]
        if name == "mrope_section":
            return _sections(name, value, self.manner)
        if numbers and _HEADS.fullmatch(name) and _value(config, "embed_dim"):
            return [2 ** (index + 1) for index in range(len(value))] if value[0] % 2 else value
        if numbers and min(value) >= 32 and _WIDTH.fullmatch(name) and not _NO_WIDTH.fullmatch(name):
            return _scaled(value) if self.manner != "shallow" else value
        return value


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """What a configuration of this class can be made with, and its default values."""
    for one in fields_of(config):
        if one.init and not one.name.startswith("_") and one.name not in _LEFT_ALONE:
            yield one.name, _value(config, one.name, one.default)


def _value(config: Any, name: str, otherwise: Any = None) -> Any:
    """A setting; its default where each layer has its own."""
    try:
        return getattr(config, name)
    except (AttributeError, RuntimeError):
        return None if otherwise is MISSING else otherwise


def _count_of_layers(config: Any) -> int | None:
    if isinstance(_value(config, "depths"), list | tuple):
        return None  # stages, each with lists of its own
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers", "layers")
    counts = (_value(config, name) for name in names)
    return next((count for count in counts if isinstance(count, int) and not isinstance(count, bool)), None)


def _layers_to_keep(config: Any) -> list[int] | None:
    """The first layer of each kind, at least two and at most four; those of most indices where a list asks for some."""
    total = _count_of_layers(config)
    if not total:
        return None
    lists = [value for _, value in _settings(config) if isinstance(value, list | tuple) and len(value) == total]
    kinds = [tuple(str(value[index]) for value in lists) for index in range(total)]
    first = [index for index in range(total) if kinds[index] not in kinds[:index]][:4]
    asked = [
        len(value)
        for name, value in _settings(config)
        if _BY_LAYER_INDEX.fullmatch(name) and isinstance(value, list | tuple) and len(value) < total
    ]
    wanted = min(total, max(2, *(min(count, 4) for count in asked), 0))
    others = [index for index in range(total) if index not in first]
    return sorted([*first, *others[: max(0, wanted - len(first))]])


def _grouped(config: Any, value: int) -> int:
    """As many as there are heads, or half as many."""
    heads = next(
        (_value(config, name) for name in ("num_attention_heads", "n_heads", "n_head") if _value(config, name)), value
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
