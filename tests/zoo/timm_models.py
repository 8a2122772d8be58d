"""The smallest model of each family of timm, models made for tests left out, and the issue's known answers.

`timm.list_modules()` has 98 families; the model with the fewest parameters of each was found by building all of them on the
meta device. Additions were counted in the families' sources: a stage of `depth` blocks with one addition makes `depth` blocks.
"""

from zoo.entry import Entry, Known, Made, lively, normal

KNOWN: dict[str, Known | None] = {
    # the known answers
    "resnet18": Known(8, 3),
    "resnet50": Known(16, 4),
    "resnetv2_50": Known(16, 4),
    "convnext_atto": Known(12),
    "mobilenetv2_100": Known(10),
    "mixer_s32_224": Known(16),
    "poolformer_s12": Known(24),
    # one of each family
    "beit_base_patch16_224": None,  # beit
    "halonet_h1": None,  # byoanet
    "mobileone_s1": None,  # byobnet
    "cait_xxs24_224": Known(52),  # cait
    "coat_tiny": None,  # coat
    "convit_tiny": None,  # convit
    "convmixer_768_32": None,  # convmixer
    "convnext_zepto_rms": None,  # convnext
    "cpubone_nano": None,  # cpubone
    "crossvit_tiny_240": None,  # crossvit
    "csatv2": None,  # csatv2
    "cs3darknet_focus_s": None,  # cspnet
    "cspnext_tiny": None,  # cspnext
    "davit_tiny": None,  # davit
    "deepseek_vit_412m": None,  # deepseek_vit
    "deit_tiny_patch16_224": None,  # deit
    "densenet121": Known(0),  # densenet
    "dla46x_c": None,  # dla
    "dpn48b": None,  # dpn
    "edgenext_xx_small": None,  # edgenext
    "efficientformer_l1": None,  # efficientformer
    "efficientformerv2_s0": None,  # efficientformer_v2
    "mobilenetv2_035": None,  # efficientnet
    "efficientvim_m1": None,  # efficientvim
    "efficientvit_b0": None,  # efficientvit_mit
    "efficientvit_m0": None,  # efficientvit_msra
    "vit_tiny_patch16_dinov3_qkvb": None,  # eva
    "fasternet_t0": None,  # fasternet
    "fastvit_t8": None,  # fastvit
    "focalnet_tiny_srf": None,  # focalnet
    "gcvit_xxtiny": None,  # gcvit
    "gemma4_vit_167m": None,  # gemma4_vit
    "ghostnet_050": None,  # ghostnet
    "hardcorenas_b": None,  # hardcorenas
    "hgnetv2_b0": None,  # hgnet
    "hiera_tiny_224": None,  # hiera
    "sam2_hiera_tiny": None,  # hieradet_sam2
    "hrnet_w18_small": None,  # hrnet
    "iformer_t": None,  # iformer
    "inception_next_atto": None,  # inception_next
    "inception_resnet_v2": None,  # inception_resnet_v2
    "inception_v3": Known(0),  # inception_v3
    "inception_v4": None,  # inception_v4
    "lcnetv2_small": None,  # lcnetv2
    "levit_128s": None,  # levit
    "lowformer_b0": None,  # lowformer
    "mambaout_femto": None,  # mambaout
    "maxvit_pico_rw_256": None,  # maxxvit
    "poolformerv2_s12": None,  # metaformer
    "gmlp_ti16_224": None,  # mlp_mixer
    "mobilenetv3_small_050": None,  # mobilenetv3
    "mobilenetv5_base": None,  # mobilenetv5
    "mobilevit_xxs": None,  # mobilevit
    "mvitv2_tiny": None,  # mvitv2
    "naflexvit_base_patch16_parfac_gap": None,  # naflexvit
    "nasnetalarge": None,  # nasnet
    "nest_tiny": None,  # nest
    "nextvit_small": None,  # nextvit
    "nf_regnet_b0": None,  # nfnet
    "pit_ti_224": None,  # pit
    "pnasnet5large": None,  # pnasnet
    "pvt_v2_b0": None,  # pvt_v2
    "qwen3_vit_88m": None,  # qwen3_vit
    "rdnet_tiny": None,  # rdnet
    "regnetx_002": None,  # regnet
    "repghostnet_050": None,  # repghost
    "repvit_m1": None,  # repvit
    "res2next50": None,  # res2net
    "resnest14d": None,  # resnest
    "resnet10t": None,  # resnet
    "resnetv2_18": None,  # resnetv2
    "rexnet_100": None,  # rexnet
    "selecsls42": None,  # selecsls
    "legacy_seresnet18": None,  # senet
    "sequencer2d_s": None,  # sequencer
    "shvit_s1": None,  # shvit
    "skresnet18": None,  # sknet
    "starnet_s050": None,  # starnet
    "swiftformer_xs": None,  # swiftformer
    "swin_tiny_patch4_window7_224": Known(24),  # swin_transformer
    "swinv2_tiny_window16_256": None,  # swin_transformer_v2
    "swinv2_cr_tiny_224": None,  # swin_transformer_v2_cr
    "tiny_vit_5m_224": None,  # tiny_vit
    "tnt_s_legacy_patch16_224": None,  # tnt
    "tresnet_m": None,  # tresnet
    "twins_svt_small": None,  # twins
    "vgg11": Known(0),  # vgg
    "visformer_tiny": None,  # visformer
    "vit_tiny_patch16_224": Known(24),  # vision_transformer
    "vit_tiny_r_s16_p8_224": None,  # vision_transformer_hybrid
    "vit_srelpos_small_patch16_224": None,  # vision_transformer_relpos
    "samvit_base_patch16_224": None,  # vision_transformer_sam
    "vitamin_small_224": None,  # vitamin
    "volo_d1_224": None,  # volo
    "ese_vovnet19b_slim_dw": None,  # vovnet
    "legacy_xception": None,  # xception
    "xception41p": None,  # xception_aligned
    "xcit_nano_12_p8_224": None,  # xcit
}


def _entry(name: str, known: Known | None) -> Entry:
    def make() -> Made:
        import timm
        import torch

        torch.manual_seed(0)
        model = timm.create_model(name)
        return Made(lively(model), (normal(1, *model.pretrained_cfg["input_size"]),))

    return Entry(name, "timm", "timm", make, known)


MODELS = tuple(_entry(name, known) for name, known in KNOWN.items())
