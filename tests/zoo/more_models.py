"""Two or three models of each of a dozen other libraries, small, with the number of blocks that their source makes.

They are built in an environment of their own (see the Makefile's `zoo`): several ask for another torch than ours. What
is known was counted from each layer's source, file and lines given, never from a trace.
"""

from collections.abc import Callable, Mapping
from typing import Any

from zoo.entry import Entry, Known, Made, integers, lively, normal

Build = Callable[[], Any]
TEXT = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def listed(
    library: str, name: str, known: Known | None, model: Build, *args: Any, kwargs: Mapping[str, Any] | None = None
) -> Entry:
    def make() -> Made:
        import torch

        torch.manual_seed(0)
        return Made(lively(model()), args, kwargs or {})

    return Entry(f"{library}/{name}", library, library, make, known)


def _diffusers(name: str, **settings: Any) -> Build:
    def build() -> Any:
        import diffusers

        return getattr(diffusers, name)(**settings)

    return build


def _torchvision(name: str) -> Build:
    def build() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(weights=None)

    return build


def _torchaudio(name: str, *args: Any, **settings: Any) -> Build:
    def build() -> Any:
        import torchaudio.models

        return getattr(torchaudio.models, name)(*args, **settings)

    return build


def _monai(name: str, **settings: Any) -> Build:
    def build() -> Any:
        from monai.networks import nets

        return getattr(nets, name)(**settings)

    return build


def _segmentation(name: str, encoder: str) -> Build:
    def build() -> Any:
        import segmentation_models_pytorch

        return getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None)

    return build


def _vit_pytorch(module: str, name: str, **settings: Any) -> Build:
    def build() -> Any:
        from importlib import import_module

        return getattr(import_module(f"vit_pytorch.{module}"), name)(**settings)

    return build


def _x_transformers(**settings: Any) -> Build:
    def build() -> Any:
        import x_transformers

        layers = x_transformers.Decoder(dim=32, depth=2, heads=2, **settings)
        return x_transformers.TransformerWrapper(num_tokens=60, max_seq_len=16, attn_layers=layers)

    return build


def _x_vision() -> Any:
    import x_transformers

    layers = x_transformers.Encoder(dim=32, depth=2, heads=2)
    return x_transformers.ViTransformerWrapper(image_size=32, patch_size=8, num_classes=5, attn_layers=layers)


def _open_clip() -> Any:
    import open_clip

    image = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    return open_clip.CLIP(16, image, {"context_length": 8, "vocab_size": 60, "width": 32, "heads": 2, "layers": 2})


def _ultralytics(name: str, file: str) -> Build:
    def build() -> Any:
        from ultralytics.nn import tasks

        return getattr(tasks, name)(file, verbose=False)

    return build


def _lora(config: str, model: str, modules: list[str], **settings: Any) -> Build:
    def build() -> Any:
        import peft
        import transformers

        base = getattr(transformers, model)(getattr(transformers, config)(**TEXT, **settings))
        return peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=modules))

    return build


def _rtdl(name: str, **settings: Any) -> Build:
    def build() -> Any:
        import rtdl_revisiting_models

        return getattr(rtdl_revisiting_models, name)(**settings)

    return build


def _nn(name: str, *args: Any, **settings: Any) -> Build:
    def build() -> Any:
        from torch import nn

        return getattr(nn, name)(*args, **settings)

    return build


def _encoder(**settings: Any) -> Build:
    def build() -> Any:
        from torch import nn

        layer = nn.TransformerEncoderLayer(16, 2, 32, **settings)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    return build


def _graph(layer: Callable[[Any, Any], Any], depth: int) -> Build:
    """Layers of a graph network, one after the other, behind a linear stem."""

    def build() -> Any:
        import torch_geometric.nn as geometric
        from torch import nn

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.Linear(6, 16)
                self.layers = nn.ModuleList(layer(geometric, nn) for _ in range(depth))

            def forward(self, x, edges):
                x = self.stem(x)
                for each in self.layers:
                    x = each(x, edges)
                return x

        return Network()

    return build


def _edges() -> Any:
    import torch

    return torch.tensor([[0, 1, 2, 3, 4, 1, 2], [1, 2, 3, 4, 0, 0, 1]])


def _whole(*sizes: int) -> Any:
    import torch

    return torch.tensor(sizes)


IMAGE = normal(2, 3, 64, 64)
SMALL = normal(2, 3, 32, 32)
TOKENS = integers(2, 7)
PATCHES = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
CAUSAL = {"input_ids": TOKENS, "use_cache": False}
TUPLE = {"return_dict": False}
ATTENTION_MLP = Known(4, how="2 layers of attention and MLP")

MODELS: tuple[Entry, ...] = (
    listed(
        "diffusers", "AutoencoderKL",
        Known(12, 2, how="ResnetBlock2D (resnet.py): 2 + 2 down and in the middle, 2 + 4 in the middle and up, 2 "
              "with a conv_shortcut; 2 attentions (attention_processor.py)"),
        _diffusers("AutoencoderKL", block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                   up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, layers_per_block=1, sample_size=16),
        normal(2, 3, 16, 16), kwargs=TUPLE,
    ),
    listed(
        "diffusers", "AutoencoderTiny", Known(6, how="3 + 3 AutoencoderTinyBlock (vae.py)"),
        _diffusers("AutoencoderTiny", encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                   num_encoder_blocks=(1, 2), num_decoder_blocks=(2, 1)),
        normal(2, 3, 16, 16), kwargs=TUPLE,
    ),
    listed(
        "diffusers", "UNet2DConditionModel",
        Known(12, 5, nested=12, how="8 ResnetBlock2D (resnet.py), 5 with a conv_shortcut; 4 Transformer2DModel with 3 "
              "blocks each inside (attention.py)"),
        _diffusers("UNet2DConditionModel", sample_size=8, block_out_channels=(8, 16), layers_per_block=1,
                   down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4, cross_attention_dim=8,
                   up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4),
        normal(2, 4, 8, 8), _whole(3, 5), normal(2, 5, 8), kwargs=TUPLE,
    ),
    listed(
        "diffusers", "DiTTransformer2DModel", Known(4, how="2 BasicTransformerBlock (attention.py), gates inside"),
        _diffusers("DiTTransformer2DModel", num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
                   num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=4),
        normal(2, 4, 8, 8), _whole(3, 5), _whole(1, 2), kwargs=TUPLE,
    ),
    listed("torchvision", "resnet18", Known(8, 3, how="2 + 2 + 2 + 2 blocks"), _torchvision("resnet18"), IMAGE),
    listed("torchvision", "convnext_tiny", Known(18, how="3 + 3 + 9 + 3 blocks"), _torchvision("convnext_tiny"), IMAGE),
    listed("torchvision", "swin_v2_t", Known(24, how="2 + 2 + 6 + 2 blocks, 2 each"), _torchvision("swin_v2_t"), IMAGE),
    listed(
        "torchaudio", "Conformer", Known(8, how="2 ConformerLayer (conformer.py): ffn1, attention, convolution, ffn2"),
        _torchaudio("Conformer", input_dim=16, num_heads=2, ffn_dim=32, num_layers=2, depthwise_conv_kernel_size=3),
        normal(2, 10, 16), _whole(10, 10),
    ),
    listed(
        "torchaudio", "ConvTasNet",
        Known(3, how="conv_tasnet.py: 4 ConvBlock, the last without; their other outputs are summed"),
        _torchaudio("ConvTasNet", num_sources=2, enc_num_feats=16, msk_num_feats=16, msk_num_hidden_feats=16,
                    msk_num_layers=2, msk_num_stacks=2),
        normal(2, 1, 400),
    ),
    listed(
        "torchaudio", "HDemucs", None,
        _torchaudio("HDemucs", ["a", "b"], audio_channels=1, channels=8, nfft=256, depth=3), normal(2, 1, 4096),
    ),
    listed(
        "MONAI", "UNet", Known(5, 3, how="5 ResidualUnit (convolutions.py), 3 of them with a convolution beside"),
        _monai("UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2),
               num_res_units=2),
        normal(2, 1, 32, 32),
    ),
    listed(
        "MONAI", "SegResNet",
        Known(3, nested=4, how="segresnet.py: 3 + 2 ResBlock; 2 sums of levels, of which the outer one holds the "
              "other, and all blocks but the first and the last"),
        _monai("SegResNet", spatial_dims=2, init_filters=8, in_channels=1, out_channels=2, blocks_down=(1, 1, 1),
               blocks_up=(1, 1)),
        normal(2, 1, 32, 32),
    ),
    listed("segmentation-models-pytorch", "Unet of resnet18", Known(8, 3, how="the encoder's 2 + 2 + 2 + 2 blocks"),
           _segmentation("Unet", "resnet18"), IMAGE),
    listed("segmentation-models-pytorch", "Segformer of mit_b0", Known(16, how="4 stages of 2 layers, 2 sums each"),
           _segmentation("Segformer", "mit_b0"), IMAGE),
    listed("segmentation-models-pytorch", "FPN of resnet18", None, _segmentation("FPN", "resnet18"), IMAGE),
    listed(
        "PyTorch Geometric", "GPSConv",
        Known(6, how="gps_conv.py: 2 layers of convolution, attention, MLP; the sum of the first two is refused"),
        _graph(lambda g, nn: g.GPSConv(16, g.GINConv(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))),
                                       heads=2, attn_type="multihead"), 2),
        normal(5, 6), _edges(),
    ),
    listed(
        "PyTorch Geometric", "DeepGCNLayer of GENConv",
        Known(3, nested=3, how="deepgcn.py: x + h; gen_conv.py: the messages are added to the node inside"),
        _graph(lambda g, nn: g.DeepGCNLayer(g.GENConv(16, 16), nn.LayerNorm(16), nn.ReLU(), block="res+"), 3),
        normal(5, 6), _edges(),
    ),
    listed("x-transformers", "Decoder", ATTENTION_MLP, _x_transformers(), TOKENS),
    listed("x-transformers", "Decoder, rotary, SwiGLU, RMS norm", ATTENTION_MLP,
           _x_transformers(rotary_pos_emb=True, ff_swish=True, ff_glu=True, use_rmsnorm=True), TOKENS),
    listed("x-transformers", "ViTransformerWrapper", ATTENTION_MLP, _x_vision, SMALL),
    listed("x-transformers", "Decoder, hyper-connections", Known(0, kinds={"mix, sum": 4}, how="2 layers, 2 sums each"),
           _x_transformers(num_residual_streams=2), TOKENS),
    listed("vit-pytorch", "SimpleViT", ATTENTION_MLP, _vit_pytorch("simple_vit", "SimpleViT", **PATCHES), SMALL),
    listed("vit-pytorch", "CaiT", Known(6, how="cait.py: 2 layers and one for the class token, 2 sums each"),
           _vit_pytorch("cait", "CaiT", cls_depth=1, **PATCHES), SMALL),
    listed(
        "vit-pytorch", "CvT", Known(6, how="cvt.py: 3 stages of one layer, 2 sums each"),
        _vit_pytorch("cvt", "CvT", num_classes=5, s1_emb_dim=16, s2_emb_dim=32, s3_emb_dim=64, s1_heads=1, s2_heads=2,
                     s2_depth=1, s3_heads=2, s3_depth=1),
        IMAGE,
    ),
    listed("open_clip", "CLIP", Known(8, how="2 layers of each tower, 2 sums each"), _open_clip, SMALL,
           integers(2, 8)),
    listed("ultralytics", "YOLOv8n", Known(6, how="yolov8.yaml: C2f with shortcuts in the backbone, 1 + 2 + 2 + 1"),
           _ultralytics("DetectionModel", "yolov8n.yaml"), IMAGE),
    listed("ultralytics", "YOLO11n-cls", None, _ultralytics("ClassificationModel", "yolo11n-cls.yaml"), IMAGE),
    listed("peft", "LoRA of GPT-2", ATTENTION_MLP,
           _lora("GPT2Config", "GPT2LMHeadModel", ["c_attn", "c_fc"], n_layer=2, n_embd=32, n_head=4), kwargs=CAUSAL),
    listed("peft", "LoRA of Llama", ATTENTION_MLP,
           _lora("LlamaConfig", "LlamaForCausalLM", ["q_proj", "v_proj"], num_hidden_layers=2, hidden_size=32,
                 num_attention_heads=4, num_key_value_heads=2, intermediate_size=64), kwargs=CAUSAL),
    listed(
        "rtdl", "ResNet", Known(2, how="2 blocks"),
        _rtdl("ResNet", d_in=6, d_out=2, n_blocks=2, d_block=16, d_hidden=None, d_hidden_multiplier=2.0, dropout1=0.1,
              dropout2=0.0),
        normal(3, 6),
    ),
    listed(
        "rtdl", "FTTransformer",
        Known(4, how="2 layers of 2 sums; the last attention, of the class token alone, is spread over all tokens"),
        _rtdl("FTTransformer", n_cont_features=3, cat_cardinalities=[4, 5], d_out=2, n_blocks=2, d_block=16,
              attention_n_heads=2, attention_dropout=0.1, ffn_d_hidden=None, ffn_d_hidden_multiplier=2.0,
              ffn_dropout=0.1, residual_dropout=0.0),
        normal(3, 3), integers(3, 2, low=0, high=4),
    ),
    listed("torch.nn", "TransformerEncoder", ATTENTION_MLP, _encoder(), normal(5, 2, 16)),
    listed("torch.nn", "TransformerEncoder, norms and batch first", ATTENTION_MLP,
           _encoder(norm_first=True, batch_first=True), normal(2, 5, 16)),
    listed("torch.nn", "Transformer", Known(10, how="2 layers of 2 sums and 2 of 3"),
           _nn("Transformer", 16, 2, 2, 2, 32, batch_first=True), normal(2, 5, 16), normal(2, 4, 16, seed=1)),
)  # fmt: skip
