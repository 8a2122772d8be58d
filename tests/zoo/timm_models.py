"""The smallest model of each family of timm, those made for tests left out, and the issue's known answers.

`timm.list_modules()` has 98 families; the model with the fewest parameters of each was found by building all of them
on the meta device. What is known of them was counted in a real run, line by line (oracles/additions.py), and each of
these lines was read: whether it adds a branch to a skip. What came of it, line by line, is in zoo/ledger/.
"""

from zoo.entry import Entry, Known, Made, lively, normal

KNOWN: dict[str, Known | None] = {
    # the known answers
    "resnet18": Known(8, 3, how="2 + 2 + 2 + 2 blocks"),
    "resnet50": Known(16, 4, how="3 + 4 + 6 + 3 blocks"),
    "resnetv2_50": Known(16, 4, how="3 + 4 + 6 + 3 blocks"),
    "convnext_atto": Known(12, how="2 + 2 + 6 + 2 blocks"),
    "mobilenetv2_100": Known(10, how="17 inverted residuals, 7 of them change the size or the width"),
    "mixer_s32_224": Known(16, how="8 layers, 2 additions each"),
    "poolformer_s12": Known(24, how="2 + 2 + 6 + 2 blocks, 2 additions each"),
    # one of each family
    "beit_base_patch16_224": Known(24, how="beit.py: 12 each at 427 428"),  # beit
    "halonet_h1": Known(19, 3, how="byobnet.py: 19 at 1142"),  # byoanet
    "mobileone_s1": Known(0, how="no addition of a branch to a skip"),  # byobnet
    "cait_xxs24_224": Known(52, how="cait.py: 2 each at 128 129, 24 each at 230 231"),  # cait
    "coat_tiny": Known(
        78,
        how="coat.py: 26 at 179, 8 each at 241 246, 6 each at 370 371 372 381 382 383",
    ),  # coat
    "convit_tiny": Known(24, how="convit.py: 12 each at 261 262"),  # convit
    "convmixer_768_32": Known(32, how="convmixer.py: 32 at 27"),  # convmixer
    "convnext_zepto_rms": Known(10, how="convnext.py: 10 at 218"),  # convnext
    "cpubone_nano": Known(9, how="cpubone.py: 9 at 132"),  # cpubone
    "crossvit_tiny_240": Known(
        36, 6, how="crossvit.py: 6 at 170; vision_transformer.py: 15 each at 250 251"
    ),  # crossvit
    "csatv2": Known(
        22,
        nested=60,
        how="csatv2.py: 14 each at 375 417 424, 4 each at 522 530, 18 at 552; grn.py: 14 at 47",
    ),  # csatv2
    "cs3darknet_focus_s": Known(9, how="cspnet.py: 9 at 245"),  # cspnet
    "cspnext_tiny": Known(3, how="cspnext.py: 3 at 156"),  # cspnext
    "davit_tiny": Known(48, how="davit.py: 6 each at 272 278 459 465, 24 at 61"),  # davit
    "deepseek_vit_412m": None,  # deepseek_vit
    "deit_tiny_patch16_224": Known(24, how="vision_transformer.py: 12 each at 250 251"),  # deit
    "densenet121": Known(0, how="no addition of a branch to a skip"),  # densenet
    "dla46x_c": Known(12, 4, how="dla.py: 12 at 137"),  # dla
    "dpn48b": Known(12, 12, how="dpn.py: 12 at 135"),  # dpn
    "edgenext_xx_small": Known(12, nested=3, how="edgenext.py: 9 at 139, 3 each at 261 271"),  # edgenext
    "efficientformer_l1": Known(
        30,
        how="efficientformer.py: 1 each at 276 277, 14 each at 314 315",
    ),  # efficientformer
    "efficientformerv2_s0": Known(
        19,
        1,
        nested=5,
        how="efficientformer_v2.py: 4 each at 232 540, 1 each at 377 429, 14 at 541",
    ),  # efficientformer_v2
    "mobilenetv2_035": Known(10, how="_efficientnet_blocks.py: 10 at 338"),  # efficientnet
    "efficientvim_m1": Known(
        28,
        how="efficientvim.py: 2 each at 258 260, 6 each at 388 393 396 399",
    ),  # efficientvim
    "efficientvit_b0": Known(11, how="efficientvit_mit.py: 11 at 458"),  # efficientvit_mit
    "efficientvit_m0": Known(38, how="efficientvit_msra.py: 38 at 141"),  # efficientvit_msra
    "vit_tiny_patch16_dinov3_qkvb": Known(24, how="eva.py: 12 each at 453 457"),  # eva
    "fasternet_t0": Known(13, how="fasternet.py: 13 at 108"),  # fasternet
    "fastvit_t8": Known(20, how="fastvit.py: 10 each at 1012 729"),  # fastvit
    "focalnet_tiny_srf": Known(24, how="focalnet.py: 12 each at 197 200"),  # focalnet
    "gcvit_xxtiny": Known(35, how="gcvit.py: 12 each at 312 313, 11 at 91"),  # gcvit
    "gemma4_vit_167m": Known(32, how="gemma4_vit.py: 16 each at 553 560"),  # gemma4_vit
    "ghostnet_050": Known(16, 5, how="ghostnet.py: 16 at 449"),  # ghostnet
    "hardcorenas_b": Known(12, how="_efficientnet_blocks.py: 12 at 338"),  # hardcorenas
    "hgnetv2_b0": Known(1, how="hgnet.py: 1 at 332"),  # hgnet
    "hiera_tiny_224": Known(24, 3, how="hiera.py: 12 each at 416 419"),  # hiera
    "sam2_hiera_tiny": Known(24, 3, how="hieradet_sam2.py: 12 each at 232 233"),  # hieradet_sam2
    "hrnet_w18_small": Known(23, 5, how="resnet.py: 18 at 163, 5 at 283"),  # hrnet
    "iformer_t": Known(26, how="iformer.py: 26 at 293"),  # iformer
    "inception_next_atto": Known(12, how="inception_next.py: 12 at 220"),  # inception_next
    "inception_resnet_v2": Known(40, how="inception_resnet_v2.py: 20 at 160, 10 each at 234 97"),  # inception_resnet_v2
    "inception_v3": Known(0, how="no addition of a branch to a skip"),  # inception_v3
    "inception_v4": Known(0, how="no addition of a branch to a skip"),  # inception_v4
    "lcnetv2_small": Known(1, how="lcnetv2.py: 1 at 164"),  # lcnetv2
    "levit_128s": Known(20, how="levit.py: 2 at 548, 9 each at 594 595"),  # levit
    "lowformer_b0": Known(21, how="lowformer.py: 21 at 72"),  # lowformer
    "mambaout_femto": Known(18, how="mambaout.py: 18 at 270"),  # mambaout
    "maxvit_pico_rw_256": Known(55, 4, how="maxxvit.py: 11 at 653, 22 each at 888 889"),  # maxxvit
    "poolformerv2_s12": Known(24, 16, how="metaformer.py: 12 each at 417 423"),  # metaformer
    "gmlp_ti16_224": Known(30, how="mlp_mixer.py: 30 at 269"),  # mlp_mixer
    "mobilenetv3_small_050": Known(7, how="_efficientnet_blocks.py: 7 at 338"),  # mobilenetv3
    "mobilenetv5_base": Known(35, how="_efficientnet_blocks.py: 20 at 485, 13 at 607, 2 at 760"),  # mobilenetv5
    "mobilevit_xxs": Known(21, how="byobnet.py: 3 at 509; vision_transformer.py: 9 each at 250 251"),  # mobilevit
    "mvitv2_tiny": Known(20, 3, nested=10, how="mvitv2.py: 10 each at 532 636 640"),  # mvitv2
    "naflexvit_base_patch16_parfac_gap": Known(24, how="vision_transformer.py: 12 each at 250 251"),  # naflexvit
    "nasnetalarge": Known(
        22,
        4,
        how="nasnet.py: 1 each at 176 252 436 494, 3 at 322, 15 at 378",
    ),  # nasnet
    "nest_tiny": Known(24, how="nest.py: 12 each at 153 154"),  # nest
    "nextvit_small": Known(
        44,
        how="nextvit.py: 16 each at 241 244, 4 each at 415 418 422",
    ),  # nextvit
    "nf_regnet_b0": Known(16, 4, how="nfnet.py: 16 at 280"),  # nfnet
    "pit_ti_224": Known(24, how="vision_transformer.py: 12 each at 250 251"),  # pit
    "pnasnet5large": Known(42, 42, how="pnasnet.py: 3 at 248, 39 at 310"),  # pnasnet
    "pvt_v2_b0": Known(16, how="pvt_v2.py: 8 each at 202 203"),  # pvt_v2
    "qwen3_vit_88m": Known(24, how="eva.py: 12 each at 453 457"),  # qwen3_vit
    "rdnet_tiny": Known(0, how="no addition of a branch to a skip"),  # rdnet
    "regnetx_002": Known(13, 4, how="regnet.py: 13 at 376"),  # regnet
    "repghostnet_050": Known(16, 5, branches=32, how="repghost.py: 32 at 225"),  # repghost
    "repvit_m1": Known(49, branches=72, how="repvit.py: 46 at 132, 23 at 212, 3 at 276"),  # repvit
    "res2next50": Known(16, 4, how="res2net.py: 16 at 135"),  # res2net
    "resnest14d": Known(4, 4, how="resnest.py: 4 at 142"),  # resnest
    "resnet10t": Known(4, 3, how="resnet.py: 4 at 163"),  # resnet
    "resnetv2_18": Known(8, 3, how="resnetv2.py: 8 at 143"),  # resnetv2
    "rexnet_100": Known(11, how="rexnet.py: 11 at 135"),  # rexnet
    "selecsls42": Known(0, how="no addition of a branch to a skip"),  # selecsls
    "legacy_seresnet18": Known(8, 3, how="senet.py: 8 at 235"),  # senet
    "sequencer2d_s": Known(36, how="sequencer.py: 18 each at 241 242"),  # sequencer
    "shvit_s1": Known(39, how="shvit.py: 39 at 38"),  # shvit
    "skresnet18": Known(8, 3, how="sknet.py: 8 at 96"),  # sknet
    "starnet_s050": Known(6, how="starnet.py: 6 at 80"),  # starnet
    "swiftformer_xs": Known(
        24,
        nested=4,
        how="swiftformer.py: 12 at 110, 4 each at 186 226 276 277",
    ),  # swiftformer
    "swin_tiny_patch4_window7_224": Known(24, how="swin_transformer.py: 12 each at 603 605"),  # swin_transformer
    "swinv2_tiny_window16_256": Known(24, how="swin_transformer_v2.py: 12 each at 541 543"),  # swin_transformer_v2
    "swinv2_cr_tiny_224": Known(24, how="swin_transformer_v2_cr.py: 12 each at 491 495"),  # swin_transformer_v2_cr
    "tiny_vit_5m_224": Known(22, how="tiny_vit.py: 2 at 118, 10 each at 420 426"),  # tiny_vit
    "tnt_s_legacy_patch16_224": Known(48, how="tnt.py: 12 each at 153 154 167 168"),  # tnt
    "tresnet_m": Known(21, 3, how="tresnet.py: 14 at 129, 7 at 73"),  # tresnet
    "twins_svt_small": Known(40, how="twins.py: 18 each at 251 252, 4 at 278"),  # twins
    "vgg11": Known(0, how="no addition of a branch to a skip"),  # vgg
    "visformer_tiny": Known(23, how="visformer.py: 8 at 178, 15 at 179"),  # visformer
    "vit_tiny_patch16_224": Known(24, how="vision_transformer.py: 12 each at 250 251"),  # vision_transformer
    "vit_tiny_r_s16_p8_224": Known(24, how="vision_transformer.py: 12 each at 250 251"),  # vision_transformer_hybrid
    "vit_srelpos_small_patch16_224": Known(
        24, how="vision_transformer_relpos.py: 12 each at 169 170"
    ),  # vision_transformer_relpos
    "samvit_base_patch16_224": Known(24, how="vision_transformer_sam.py: 12 each at 276 279"),  # vision_transformer_sam
    "vitamin_small_224": Known(34, 2, how="vision_transformer.py: 14 each at 250 251; vitamin.py: 6 at 217"),  # vitamin
    "volo_d1_224": Known(
        40,
        2,
        how="volo.py: 4 each at 189 190, 14 each at 309 310, 2 each at 445 446",
    ),  # volo
    "ese_vovnet19b_slim_dw": Known(0, how="no addition of a branch to a skip"),  # vovnet
    "legacy_xception": Known(12, 4, how="xception.py: 12 at 119"),  # xception
    "xception41p": Known(12, 4, how="xception_aligned.py: 12 at 260"),  # xception_aligned
    "xcit_nano_12_p8_224": Known(40, how="xcit.py: 2 each at 227 237, 12 each at 345 348 349"),  # xcit
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
