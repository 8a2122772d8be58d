"""Architectures of transformers built from small configurations, with the number of blocks that their layers make.

`L` layers of "attention, MLP" make 2 L blocks, layers that do both side by side make L blocks of two branches, and so
on: counted from the configuration and from each layer's source, never from a trace.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.entry import Entry, Known, Made, integers, lively, normal

L = 2  # layers of each stack
COMMON = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
STACK = {"hidden_size": 32, "num_hidden_layers": L, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = {**STACK, "num_key_value_heads": 2}
D_MODEL = {
    "d_model": 32,
    "encoder_layers": L,
    "decoder_layers": L,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_start_token_id": 2,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": L, "num_heads": 4, "decoder_start_token_id": 0}
IMAGE = {**STACK, "image_size": 32, "patch_size": 8}
AUDIO = {**STACK, "conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 8), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}  # fmt: skip

IDS = {"input_ids": integers(2, 7)}
CAUSAL = {**IDS, "use_cache": False}
PAIR = {"input_ids": integers(2, 7), "decoder_input_ids": integers(2, 5, seed=1), "use_cache": False}
PIXELS = {"pixel_values": normal(2, 3, 32, 32)}

SEQUENTIAL = Known(2 * L, how="2 L: attention, MLP")
PARALLEL = Known(L, branches=2 * L, how="L, attention and MLP side by side")
MIXERS = Known(L, nested=L, how="L: one mixer a layer; in each the D term, y + D x")
ENCODER_DECODER = Known(5 * L, how="2 L + 3 L: attention, MLP; attention, cross-attention, MLP")


def _entry(
    kind: str, name: str, config: str, model: str, known: Known | None, inputs: Mapping[str, Any], **settings: Any
) -> Entry:
    def make() -> Made:
        import torch
        import transformers

        torch.manual_seed(0)
        made = getattr(transformers, config)(**{**COMMON, **settings})
        return Made(lively(getattr(transformers, model)(made)), (), inputs)

    return Entry(name, "transformers", kind, make, known)


def _decoder(stem: str, known: Known = SEQUENTIAL, head: str = "ForCausalLM", **settings: Any) -> Entry:
    return _entry("decoder", stem, f"{stem}Config", f"{stem}{head}", known, CAUSAL, **settings)


def _experts(stem: str, known: Known = SEQUENTIAL, **settings: Any) -> Entry:
    return _entry("mixture of experts", stem, f"{stem}Config", f"{stem}ForCausalLM", known, CAUSAL, **settings)


def _space(stem: str, known: Known = MIXERS, **settings: Any) -> Entry:
    return _entry("state space", stem, f"{stem}Config", f"{stem}ForCausalLM", known, CAUSAL, **settings)


def _encoder(stem: str, known: Known | None = SEQUENTIAL, inputs: Mapping[str, Any] = IDS, **settings: Any) -> Entry:
    return _entry("encoder", stem, f"{stem}Config", f"{stem}Model", known, inputs, **(settings or STACK))


def _both(stem: str, known: Known = ENCODER_DECODER, head: str = "ForConditionalGeneration", **settings: Any) -> Entry:
    return _entry("encoder-decoder", stem, f"{stem}Config", f"{stem}{head}", known, PAIR, **(settings or D_MODEL))


def _vision(
    stem: str, known: Known | None, inputs: Mapping[str, Any] = PIXELS, head: str = "Model", **settings: Any
) -> Entry:
    return _entry("vision", stem, f"{stem}Config", f"{stem}{head}", known, inputs, **settings)


def _audio(stem: str, known: Known | None, inputs: Mapping[str, Any], head: str = "Model", **settings: Any) -> Entry:
    return _entry("audio", stem, f"{stem}Config", f"{stem}{head}", known, inputs, **settings)


def _two_towers(stem: str, known: Known, text: Mapping[str, Any], vision: Mapping[str, Any], **settings: Any) -> Entry:
    inputs = {**IDS, **PIXELS}
    return _entry(
        "multimodal", stem, f"{stem}Config", f"{stem}Model", known, inputs,
        text_config={**COMMON, **text}, vision_config=dict(vision), **settings,
    )  # fmt: skip


N_LAYER = {"n_layer": L, "n_embd": 32, "n_head": 4}
WAVE = {"input_values": normal(2, 400)}

MODELS = (
    # decoders
    _decoder("GPT2", head="LMHeadModel", **N_LAYER),
    _decoder(
        "GPTNeo", hidden_size=32, num_layers=L, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=4
    ),
    _decoder("GPTJ", PARALLEL, rotary_dim=4, **N_LAYER),
    _decoder("GPTNeoX", PARALLEL, **STACK),
    _decoder("GPTBigCode", **N_LAYER),
    _decoder("CodeGen", PARALLEL, rotary_dim=4, **N_LAYER),
    _decoder("OPT", hidden_size=32, num_hidden_layers=L, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32),
    _decoder("Bloom", hidden_size=32, n_layer=L, n_head=4),
    _decoder("Falcon", PARALLEL, hidden_size=32, num_hidden_layers=L, num_attention_heads=4),
    _decoder("Mpt", d_model=32, n_heads=4, n_layers=L),
    _decoder("Llama", **GROUPED),
    _decoder("Mistral", **GROUPED),
    _decoder("Qwen2", **GROUPED),
    _decoder("Qwen3", head_dim=8, **GROUPED),
    _decoder("Gemma", head_dim=8, **GROUPED),
    _decoder("Gemma2", head_dim=8, **GROUPED),
    _entry("decoder", "Gemma3", "Gemma3TextConfig", "Gemma3ForCausalLM", SEQUENTIAL, CAUSAL, head_dim=8, **GROUPED),
    _decoder("Phi", PARALLEL, **STACK),
    _decoder("Phi3", **GROUPED),
    _decoder("Cohere", PARALLEL, **GROUPED),
    _decoder("Cohere2", PARALLEL, head_dim=8, **GROUPED),
    _decoder("Olmo", **GROUPED),
    _decoder("Olmo2", **GROUPED),
    _decoder("Granite", residual_multiplier=0.3, **GROUPED),
    _decoder("StableLm", **GROUPED),
    _decoder("Starcoder2", **GROUPED),
    _decoder("Persimmon", **STACK),
    _decoder("Nemotron", **GROUPED),
    _decoder("SmolLM3", **GROUPED),
    _decoder("Glm", head_dim=8, **GROUPED),
    _decoder("Helium", head_dim=8, **GROUPED),
    _decoder("DiffLlama", **GROUPED),
    _decoder("BioGpt", **STACK),
    _decoder("XGLM", d_model=32, num_layers=L, attention_heads=4, ffn_dim=64),
    _decoder("CTRL", head="LMHeadModel", dff=64, **N_LAYER),
    _decoder("OpenAIGPT", head="LMHeadModel", **N_LAYER),
    # mixtures of experts
    _experts("Mixtral", num_local_experts=4, **GROUPED),
    _experts(
        "Qwen2Moe",
        Known(2 * L, branches=3 * L, how="2 L: attention, MLP; each layer adds a shared expert"),
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        **GROUPED,
    ),
    _experts("Qwen3Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=8, **GROUPED),
    _experts("Olmoe", num_experts=4, num_experts_per_tok=2, **GROUPED),
    _experts("Phimoe", num_local_experts=4, **GROUPED),
    _experts("GraniteMoe", num_local_experts=4, num_experts_per_tok=2, **GROUPED),
    _experts("GptOss", num_local_experts=4, num_experts_per_tok=2, head_dim=8, **GROUPED),
    _experts(
        "DeepseekV3",
        Known(
            2 * L,
            branches=2 * L + 1,
            how="2 L: attention, MLP; the second layer adds a shared expert",
        ),
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        **STACK,
    ),
    # state spaces and other recurrences
    _space("Mamba", hidden_size=32, num_hidden_layers=L, state_size=4),
    _space("FalconMamba", hidden_size=32, num_hidden_layers=L, state_size=4),
    _space(
        "Mamba2",
        hidden_size=32,
        num_hidden_layers=L,
        state_size=4,
        num_heads=8,
        head_dim=8,
        n_groups=2,
        chunk_size=4,
    ),
    _space(
        "Rwkv",
        Known(2 * L, how="2 L: time mixing, channel mixing"),
        hidden_size=32,
        num_hidden_layers=L,
        attention_hidden_size=32,
        context_length=16,
    ),
    _space(
        "RecurrentGemma",
        Known(2 * L, how="2 L: recurrence or attention, MLP"),
        lru_width=32,
        attention_window_size=8,
        **GROUPED,
    ),
    _space(
        "Jamba",
        Known(2 * L, nested=L // 2, how="2 L: Mamba or attention, MLP; in each Mamba the D term"),
        num_experts=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        **GROUPED,
    ),
    _space(
        "Bamba",
        Known(2 * L, nested=L // 2, how="2 L: Mamba 2 or attention, MLP; in each Mamba the D term"),
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_n_groups=2,
        mamba_d_state=4,
        mamba_chunk_size=4,
        attn_layer_indices=[1],
        **GROUPED,
    ),
    # encoders
    _encoder("Bert"),
    _encoder("Roberta"),
    _encoder("RobertaPreLayerNorm"),
    _encoder("Albert", embedding_size=16, **STACK),
    _encoder("DistilBert", dim=32, n_layers=L, n_heads=4, hidden_dim=64),
    _encoder("Electra", embedding_size=16, **STACK),
    _encoder("Deberta"),
    _encoder("DebertaV2"),
    _encoder("MPNet"),
    _encoder("FNet", hidden_size=32, num_hidden_layers=L, intermediate_size=64),
    _encoder("XLNet", inputs={**IDS, "use_mems": False}, d_model=32, n_layer=L, n_head=4, d_inner=64),
    _encoder("ModernBert", **STACK),
    _encoder("RoFormer", embedding_size=32, **STACK),
    _encoder(
        "Nystromformer",
        Known(2 * L, nested=L, how="2 L: attention, MLP; in attention the convolution of the values"),
        num_landmarks=4,
        segment_means_seq_len=4,
        **STACK,
    ),
    _encoder("SqueezeBert", embedding_size=32, **STACK),
    _encoder("ConvBert", embedding_size=32, **STACK),
    _encoder("Esm", position_embedding_type="rotary", **STACK),
    _encoder("MegatronBert"),
    _encoder(
        "Funnel",
        Known(
            5,
            nested=2,
            how="attention, MLP in 3 layers; a skip from the first to the decoder holds the second",
        ),
        inputs=IDS,
        d_model=32,
        block_sizes=[1, 1],
        n_head=4,
        d_head=8,
        d_inner=64,
        num_decoder_layers=1,
    ),
    _encoder(
        "MobileBert",
        Known(L, nested=3 * L, how="L bottlenecks; in each attention and two MLPs"),
        embedding_size=16,
        intra_bottleneck_size=16,
        num_feedforward_networks=2,
        **STACK,
    ),
    _encoder(
        "Canine",
        Known(2 * L + 4, how="2 L + 2 + 2: attention, MLP; one layer on characters before and after"),
        inputs={"input_ids": integers(2, 32)},
        downsampling_rate=4,
        local_transformer_stride=8,
        **STACK,
    ),
    # encoders with decoders
    _both("T5", **T5),
    _both("UMT5", **T5),
    _both("LongT5", local_radius=4, **T5),
    _both(
        "SwitchTransformers",
        replace(ENCODER_DECODER, branches=ENCODER_DECODER.blocks + 1, how="and both experts of one layer are hit"),
        num_experts=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        num_decoder_layers=L,
        **T5,
    ),
    _both("Bart"),
    _both("MBart"),
    _both("Pegasus"),
    _both("M2M100"),
    _both("Blenderbot"),
    _both("Marian", head="MTModel"),
    _both("LED", attention_window=4, max_encoder_position_embeddings=64, max_decoder_position_embeddings=64, **D_MODEL),
    _both(
        "ProphetNet",
        hidden_size=32,
        num_encoder_layers=L,
        num_decoder_layers=L,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        decoder_start_token_id=2,
    ),
    # images and video
    _vision("ViT", SEQUENTIAL, **IMAGE),
    _vision("DeiT", SEQUENTIAL, **IMAGE),
    _vision("Beit", SEQUENTIAL, **IMAGE),
    _vision("Dinov2", SEQUENTIAL, **IMAGE),
    _vision("ViTMAE", SEQUENTIAL, **IMAGE),
    _vision(
        "VideoMAE", SEQUENTIAL, inputs={"pixel_values": normal(2, 2, 3, 32, 32)}, num_frames=2, tubelet_size=2, **IMAGE
    ),
    _vision(
        "Vivit",
        SEQUENTIAL,
        inputs={"pixel_values": normal(2, 2, 3, 32, 32)},
        num_frames=2,
        tubelet_size=[2, 8, 8],
        **IMAGE,
    ),
    _vision(
        "Timesformer",
        Known(
            2 * L, L, how="2 L: attention over time beside the class token, MLP; the sum over space joins two tensors"
        ),
        inputs={"pixel_values": normal(2, 2, 3, 32, 32)},
        num_frames=2,
        **IMAGE,
    ),
    _vision(
        "Swin",
        Known(8, how="2 x 4 layers"),
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=2,
    ),
    _vision(
        "Swinv2",
        Known(8, how="2 x 4 layers"),
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    _vision("ConvNext", Known(4, how="sum of depths"), depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 32, 64]),
    _vision(
        "ConvNextV2",
        Known(4, nested=4, how="sum of depths; GRN in each"),
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 32, 64],
    ),
    _vision(
        "ResNet",
        Known(4, 4, how="sum of depths; each stage changes the width"),
        embedding_size=8,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
    ),
    _vision(
        "RegNet",
        Known(4, 4, how="sum of depths; each stage changes the width"),
        embedding_size=8,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        groups_width=8,
    ),
    _vision(
        "PoolFormer",
        Known(8, how="2 x sum of depths"),
        inputs={"pixel_values": normal(2, 3, 64, 64)},
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
    ),
    _vision(
        "Segformer",
        Known(8, how="attention, MLP; sum of depths 4"),
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 2],
    ),
    _vision(
        "Pvt",
        Known(8, how="attention, MLP; sum of depths 4"),
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 2],
        image_size=32,
    ),
    _vision(
        "MobileViT",
        Known(21, how="3 inverted residuals of stride 1; attention, MLP in 2 + 4 + 3 layers"),
        inputs={"pixel_values": normal(2, 3, 64, 64)},
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64],
        image_size=64,
        num_attention_heads=2,
    ),
    _vision(
        "Levit",
        Known(14, how="attention, MLP in 3 x 2 layers; an MLP after each of 2 subsamplings"),
        inputs={"pixel_values": normal(2, 3, 64, 64)},
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[2, 2, 4],
        depths=[2, 2, 2],
        key_dim=[8, 8, 8],
        mlp_ratio=[2, 2, 2],
        attention_ratio=[2, 2, 2],
    ),
    _vision(
        "Hiera",
        Known(6, 2, how="attention, MLP in 3 layers; 2 of them pool the skip"),
        image_size=[32, 32],
        patch_size=[3, 3],
        patch_stride=[2, 2],
        patch_padding=[1, 1],
        embed_dim=16,
        depths=[1, 1, 1],
        num_heads=[1, 2, 4],
        query_stride=[2, 2],
        num_query_pool=2,
        masked_unit_size=[4, 4],
        embed_dim_multiplier=2.0,
    ),
    _vision(
        "FocalNet",
        Known(4, how="modulation, MLP in 2 layers"),
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        hidden_sizes=[16, 32],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
    ),
    # sound
    _audio("Wav2Vec2", Known(2 * L + 1, how="2 L + 1: attention, MLP; the positional convolution"), WAVE, **AUDIO),
    _audio("Hubert", Known(2 * L + 1, how="2 L + 1: attention, MLP; the positional convolution"), WAVE, **AUDIO),
    _audio("WavLM", Known(2 * L + 1, how="2 L + 1: attention, MLP; the positional convolution"), WAVE, **AUDIO),
    _audio(
        "Whisper",
        ENCODER_DECODER,
        {"input_features": normal(2, 8, 40), "decoder_input_ids": integers(2, 5), "use_cache": False},
        head="ForConditionalGeneration",
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        **D_MODEL,
    ),
    _audio(
        "Speech2Text",
        ENCODER_DECODER,
        {"input_features": normal(2, 40, 8), "decoder_input_ids": integers(2, 5), "use_cache": False},
        head="ForConditionalGeneration",
        input_feat_per_channel=8,
        conv_channels=16,
        max_source_positions=40,
        max_target_positions=20,
        **D_MODEL,
    ),
    _audio(
        "AST",
        SEQUENTIAL,
        {"input_values": normal(2, 32, 16)},
        max_length=32,
        num_mel_bins=16,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
        **STACK,
    ),
    # several of them
    _two_towers("CLIP", Known(4 * L, how="2 L + 2 L: two towers"), STACK, IMAGE, projection_dim=16),
    _two_towers(
        "Siglip",
        Known(4 * L + 1, how="2 L + 2 L + 1: two towers; the pooling head"),
        {**STACK, "max_position_embeddings": 16, "projection_size": 32},
        IMAGE,
    ),
    _two_towers(
        "AltCLIP", Known(4 * L, how="2 L + 2 L: two towers"), {**STACK, "project_dim": 16}, IMAGE, projection_dim=16
    ),
    _two_towers("ChineseCLIP", Known(4 * L, how="2 L + 2 L: two towers"), STACK, IMAGE, projection_dim=16),
    _two_towers("Blip", Known(4 * L, how="2 L + 2 L: two towers"), STACK, IMAGE, projection_dim=16),
    _entry(
        "multimodal", "Vilt", "ViltConfig", "ViltModel", SEQUENTIAL, {**IDS, **PIXELS}, max_image_length=-1, **IMAGE
    ),
    _entry(
        "multimodal",
        "LayoutLM",
        "LayoutLMConfig",
        "LayoutLMModel",
        SEQUENTIAL,
        {**IDS, "bbox": integers(2, 7, 4).sort(-1).values},
        **STACK,
    ),
    # time series
    _entry(
        "time series",
        "PatchTST",
        "PatchTSTConfig",
        "PatchTSTModel",
        SEQUENTIAL,
        {"past_values": normal(2, 32, 3)},
        num_input_channels=3,
        context_length=32,
        patch_length=8,
        patch_stride=8,
        d_model=32,
        num_hidden_layers=L,
        num_attention_heads=4,
        ffn_dim=64,
    ),
    _entry(
        "time series",
        "DecisionTransformer",
        "DecisionTransformerConfig",
        "DecisionTransformerModel",
        SEQUENTIAL,
        {
            "states": normal(2, 4, 5),
            "actions": normal(2, 4, 3),
            "rewards": normal(2, 4, 1),
            "returns_to_go": normal(2, 4, 1),
            "timesteps": integers(2, 4, high=20),
            "attention_mask": integers(2, 4, low=1, high=2),
        },
        state_dim=5,
        act_dim=3,
        hidden_size=32,
        n_layer=L,
        n_head=4,
    ),
)
