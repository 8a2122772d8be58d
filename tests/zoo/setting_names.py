"""What a setting of a configuration is, by its name: patterns that the whole name must match."""

import re

LAYERS = re.compile(
    r"(.*_)?(num|n|l|x|r)?_?(hidden_|encoder_|decoder_|conv_|dec_)?(layers?|blocks|depth)(_per_(stage|block))?|depths?"
    r"|num_.*_(layers|blocks)|n_layers_.*|(.*_)?num_layers_per_stack|.*_num_(layers|blocks|convs)"
    r"|num_self_attends_per_block"
)
NO_LAYERS = re.compile(
    r".*(feature|insert|max_window|first|start|end|last|conditional|residual|spatial_vision)_?.*layers?"
    r"|max_depth|min_depth|.*_index|c2f.*|.*_every_.*|num_kv_shared_layers|num_.*_full_attention_layers"
)
VOCABULARY = re.compile(
    r"(.*_)?vocab(_size)?(_base|_per_layer_input)?|(.*_)?n_vocab|.*hash_byte_group_vocab|num_hash_buckets"
)
TOKEN = re.compile(
    r".*(token|bos|eos|pad|sep|cls|mask|start|end|newline|patch|user|boi|eoi|boa|eoa)_?(id|ids|index|idx|list)"
)
GROUPED_HEADS = re.compile(r"(.*_)?(key_value|kv|num_key|n_kv|kv_n)_?(attention_)?heads|multi_query_group_num")
HEADS = re.compile(r"(.*_)?(heads?|num_heads)")
EXPERTS = re.compile(r"(.*_)?(n|num|moe)_?(\w*_)?(experts|expert_num)|zero_expert_num")
CHOSEN = re.compile(r".*(experts?_per_tok(en)?|top_?k|moe_k)")
HEAD_WIDTH = re.compile(
    r"(.*_)?(head_dim|dim_head|head_size|d_head|kv_channels|d_kv|head_width)|head_dim_.*|attention_head_dim"
)
WIDER = re.compile(
    r".*(intermediate|ffn|ff|feed_?forward|mlp|inner|feedforward|fc)_?(hidden_)?(size|dim|width|units)?|d_inner|dff|ffn_.*|.*linear_units"
)
WIDTH = re.compile(
    r".*(hidden|embed(ding)?|model|proj(ection)?|output|dim|channels|width|units|rank|embd|features?|size|inplanes|lora|state|feats)"
    r"(_size|_dim|_dims|_channels?|_rank|_in|_out|_global)?|d_\w+"
)
NO_WIDTH = re.compile(
    r".*(kernel|stride|patch|image|window|chunk|batch|codebook|pool|group|block|hop|frame|sampl|rate|tile|crop|cache"
    r"|merge|num_channels|in_channels|audio_channels|mel|temporal|segment|stack|bucket|context|buffer|upsampl|input_channels"
    r"|type_vocab|local|grid|conv_size|compress|expansion|factor|per_tok|spatial|queue|feature_layer|canvas|input_size"
    r"|feature_size|past|horizon|length).*"
)
EDGE = re.compile(r"(.*_)?(image|img|pretrain_image|input_image|input|pretrain_img|crop|spec)_size|resolution")
PATCH = re.compile(r"(.*_)?patch_size")
LEFT_ALONE = frozenset({"per_layer_config"})
BY_LAYER_INDEX = re.compile(r"_?(out_|.*_)?(indices|indexes|indexs|layers|layer_ids|layers_ids|idx|stages|index)")
