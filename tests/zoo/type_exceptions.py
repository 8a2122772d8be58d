"""What the general rules of small_configs.py and small_inputs.py get wrong, type by type, as data.

SETTINGS: values by the name of a setting, which hold whatever the rules say; a dotted name is one of a nested
configuration. INPUTS: how inputs are made that the rules do not know, or make in another size.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from zoo.entry import integers, normal

_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_HALF_MROPE = {**_MROPE, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_BOTH_ROPES = {"full_attention": _ROPE, "sliding_attention": _ROPE}
_WINDOW = {"window_size": 2}
_SERIES = {"prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2, 3], "num_time_features": 2}
_SERIES_INPUTS: Mapping[str, Callable[[], Any]] = {
    "past_values": lambda: normal(2, 15),
    "past_time_features": lambda: normal(2, 15, 2),
    "past_observed_mask": lambda: torch.ones(2, 15),
    "future_values": lambda: normal(2, 4, seed=1),
    "future_time_features": lambda: normal(2, 4, 2, seed=1),
}
_HIERA = {
    "window_size_per_stage": [4, 4, 4, 4],
    "query_stride": [2, 2],
    "hidden_size": 16,
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
}
_QUERIES = {"image_token_index": 64, "num_query_tokens": 4}
_WHOLE_QFORMER = {"qformer_input_ids": lambda: integers(2, 5, seed=2)}


def _within(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in settings.items()}


_INDEXER = {
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
}


SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "autoformer": _SERIES,
    "informer": _SERIES,
    "time_series_transformer": _SERIES,
    "blip-2": _QUERIES,
    "chameleon": {"vocabulary_map": {"<image>": 64, "IMGIMGBS": 65}},
    "cohere_compass": {"text_config.rope_parameters": _BOTH_ROPES},
    "cohere_compass_text": {"rope_parameters": _BOTH_ROPES},
    "cvt": {"depth": [1, 2, 3], "embed_dim": [16, 48, 96]},
    "dbrx": {"attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 10000.0}},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", "sparse"], "text_config.num_experts_per_tok": 2},
    "donut-swin": _WINDOW,
    "ernie4_5_vl_moe": {"text_config.rope_parameters": _MROPE},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "funnel": {
        "block_sizes": [1, 1],
        "block_repeats": [1, 1],
        "num_decoder_layers": 1,
        "architectures": ["FunnelModel"],
    },
    "gemma3n": {"text_config.num_kv_shared_layers": 0},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm46v": {"text_config.rope_parameters": _MROPE},
    "glm4v": {"text_config.rope_parameters": _MROPE},
    "glm4v_moe": {"text_config.rope_parameters": _HALF_MROPE},
    "glm4v_moe_text": {"rope_parameters": _HALF_MROPE},
    "glm4v_text": {"rope_parameters": _MROPE},
    "glm5_next": {"text_config.index_topk": 16},
    "glm5_next_text": {"index_topk": 16},
    "glm_image": {"text_config.rope_parameters": _MROPE},
    "glm_image_text": {"rope_parameters": _MROPE},
    "glmga": {"text_config.rope_parameters": _MROPE},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]], "downsample_rate": "1/2", "spatial_target_layers": [0, 1]},
    "hunyuan_vl": {"text_config.rope_parameters": _MROPE, "text_config.head_dim": 16},
    "hunyuan_vl_text": {"rope_parameters": _MROPE, "head_dim": 16},
    "grounding-dino": {"backbone_config.window_size": 2},
    "instructblip": _QUERIES,
    "instructblipvideo": {"video_token_index": 64, "num_query_tokens": 4},
    "led": {"attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lw_detr": {"backbone_config.num_windows": 4, "projector_scale_factors": [1.0]},
    "mask2former": {"backbone_config.window_size": 2},
    "mm-grounding-dino": {"backbone_config.window_size": 2},
    "molmo2": {"adapter_config.vision_feature_layer": [0, 1]},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "musicgen": {"dropout": 0.0, "layerdrop": 0.0},
    "musicgen_melody": {"dropout": 0.0, "layerdrop": 0.0},
    "qwen2_5_omni_thinker": {"text_config.rope_parameters": _MROPE},
    "qwen2_5_vl": {"text_config.rope_parameters": _MROPE},
    "qwen2_5_vl_text": {"rope_parameters": _MROPE},
    "qwen2_vl": {"text_config.rope_parameters": _MROPE, "vision_config.embed_dim": 64, "vision_config.hidden_size": 64},
    "qwen2_vl_text": {"rope_parameters": _MROPE},
    "pvt": {"image_size": 32, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 2]},
    "qwen4_exp": _within("text_config", _INDEXER),
    "qwen4_exp_text": _INDEXER,
    "sam2_hiera_det_model": _HIERA,
    "sam2_vision_model": _within("backbone_config", _HIERA),
    "sam2": _within("vision_config.backbone_config", _HIERA),
    "seggpt": {
        "image_size": [64, 32],
        "pretrain_image_size": 32,
        "merge_index": 0,
        "intermediate_hidden_state_indices": [1, 1, 1, 1],
    },
    "swin": _WINDOW,
    "t5gemma2_encoder": {"text_config.dropout_rate": 0.0},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
    },
}
INPUTS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "audio-spectrogram-transformer": {"input_values": lambda: normal(2, 1024, 128)},
    "autoformer": _SERIES_INPUTS,
    "blip_2_qformer": {
        "query_embeds": lambda: normal(2, 4, 64),
        "encoder_hidden_states": lambda: normal(2, 6, 64, seed=1),
    },
    "clap": {"input_features": lambda: normal(2, 1, 64, 64)},
    "decision_transformer": {
        "states": lambda: normal(2, 4, 17),
        "actions": lambda: normal(2, 4, 4),
        "rewards": lambda: normal(2, 4, 1),
        "returns_to_go": lambda: normal(2, 4, 1),
        "timesteps": lambda: integers(2, 4, high=20),
        "attention_mask": lambda: torch.ones(2, 4, dtype=torch.long),
    },
    "fun_asr_nano_encoder": {
        "input_features": lambda: normal(2, 16, 560),
        "input_features_mask": lambda: torch.ones(2, 16, dtype=torch.long),
    },
    "gemma4_audio": {"input_features": lambda: normal(2, 64, 128)},
    "gemma4_vision": {
        "pixel_values": lambda: normal(2, 16, 192),
        "pixel_position_ids": lambda: torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(2, 1, 1),
    },
    "granite_speech5_ctc": {"input_features": lambda: normal(2, 16, 320)},
    "granite_speech5_encoder": {"input_features": lambda: normal(2, 16, 320)},
    "kimi_k25_vision": {"pixel_values": lambda: normal(32, 3, 8, 8)},
    "gemma3n_audio": {
        "audio_mel": lambda: normal(2, 64, 128),
        "audio_mel_mask": lambda: torch.zeros(2, 64, dtype=torch.bool),
    },
    "idefics": {
        "pixel_values": lambda: normal(2, 1, 3, 32, 32),
        "image_attention_mask": lambda: torch.ones(2, 7, 1, dtype=torch.long),
    },
    "informer": _SERIES_INPUTS,
    "instructblip": _WHOLE_QFORMER,
    "instructblipvideo": _WHOLE_QFORMER,
    "lxmert": {"visual_feats": lambda: normal(2, 6, 64), "visual_pos": lambda: normal(2, 6, 4)},
    "perceiver": {"inputs": lambda: normal(2, 10, 64)},
    "qwen3_asr_encoder": {
        "input_features": lambda: normal(2, 128, 100),
        "input_features_mask": lambda: torch.ones(2, 100, dtype=torch.long),
    },
    "seggpt": {
        "pixel_values": lambda: normal(2, 3, 32, 32),
        "prompt_pixel_values": lambda: normal(2, 3, 32, 32, seed=1),
        "prompt_masks": lambda: normal(2, 3, 32, 32, seed=2),
    },
    "speecht5": {"input_values": lambda: normal(2, 9, 64), "decoder_input_values": lambda: normal(2, 5, 64, seed=1)},
    "time_series_transformer": _SERIES_INPUTS,
    "timesfm": {
        "past_values": lambda: normal(2, 64),
        "past_values_padding": lambda: torch.zeros(2, 64, dtype=torch.long),
        "freq": lambda: torch.zeros(2, 1, dtype=torch.long),
    },
}
