"""The known answers of the issue's table, asserted exactly: blocks, projections, branches, nested blocks.

And every addition of these models is counted or refused as the ledger of additions says.
"""

from functools import cache

import pytest
import torch

import torchvision_stub  # noqa: F401
from marks import slow
from unbraid.errors import NotResidualError
from unbraid.form import trace

timm = pytest.importorskip("timm")
pytest.importorskip("transformers")

from oracles import concatenations  # noqa: E402
from oracles.additions import Place  # noqa: E402
from oracles.ledger import faults, read  # noqa: E402
from zoo.catalogue import find  # noqa: E402
from zoo.result import by_line, counted, counts, joined, joins  # noqa: E402

# Two layers each: the configurations of zoo/transformers_models.py.
FAST = {
    "resnet18": (8, 3, 8, 0),
    "convnext_atto": (12, 0, 12, 0),
    "GPT2": (4, 0, 4, 0),
    "Llama": (4, 0, 4, 0),
    "Bloom": (4, 0, 4, 0),
    "Bert": (4, 0, 4, 0),
    "FNet": (4, 0, 4, 0),
    "T5": (10, 0, 10, 0),
}
SLOW = {
    "mixer_s32_224": (16, 0, 16, 0),
    "Gemma2": (4, 0, 4, 0),
    "GPTJ": (2, 0, 4, 0),
    "mobilenetv2_100": (10, 0, 10, 0),
    "resnet50": (16, 4, 16, 0),
    "resnetv2_50": (16, 4, 16, 0),
    "vit_tiny_patch16_224": (24, 0, 24, 0),
    "swin_tiny_patch4_window7_224": (24, 0, 24, 0),
    "cait_xxs24_224": (52, 0, 52, 0),
    "poolformer_s12": (24, 0, 24, 0),
    "ese_vovnet19b_slim_dw": (0, 0, 0, 0),  # its blocks are concatenations, which the ledger of these counts
    "OPT": (4, 0, 4, 0),
    "Mixtral": (4, 0, 4, 0),
    "GPTNeoX": (2, 0, 4, 0),
    "Falcon": (2, 0, 4, 0),
    "Cohere": (2, 0, 4, 0),
    "Mamba": (2, 0, 2, 2),  # and nested in each mixer the D term, y + D x
    "Mamba2": (2, 0, 2, 2),
    "ConvNextV2": (4, 0, 4, 4),  # and nested in each block the response normalisation, x + γ·norm(x)·x + β
    "Siglip": (9, 0, 9, 0),  # two towers, and the pooling head
}


@pytest.mark.parametrize(("name", "answer"), FAST.items(), ids=str)
def test_known_answer(name, answer):
    _check(name, answer)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "answer"), SLOW.items(), ids=str)
def test_known_answer_of_a_larger_model(name, answer):
    _check(name, answer)


@cache
def form_of(name):
    made = find(name).make()
    return trace(made.model, made.args, made.kwargs)


def _check(name, answer):
    form = form_of(name)
    assert counts(form) == answer
    assert form.error <= 1e-5
    assert not form.silent
    assert _faults(name, counted(form)) == []
    beside = [(Place(*place), times) for *place, times in joins(find(name).make())[1]]
    assert not list(concatenations.faults(concatenations.ledger(), name, beside, joined(form), by_line(form.refusals)))


def _faults(name, blocks):
    ran = [(Place(*place), times) for *place, times in joins(find(name).make())[0]]
    return list(faults(read(), name, ran, blocks, by_line(form_of(name).refusals)))


@pytest.mark.parametrize("name", ["GPTJ", "T5"])
def test_the_ledger_sees_each_block_that_is_taken_away(name):
    blocks = counted(form_of(name))
    for line in blocks:
        (fault,) = _faults(name, {**blocks, line: blocks[line] - 1})
        assert fault.startswith(f"{line}: {blocks[line]} blocks by the ledger; the form counts {blocks[line] - 1}")


def test_post_norm_is_trunk():
    form = form_of("Bert")
    assert {block.after for block in form.blocks} == {("layer_norm",)}
    assert [block.name for block in form.blocks][:2] == [
        "encoder.layer.0.attention.output",
        "encoder.layer.0.output",
    ]


def test_an_encoder_and_a_decoder_are_two_trunks():
    form = form_of("T5")
    assert len(form.sources) == 2


def test_two_branches_have_names_of_their_own():
    form = form_of("GPTJ")
    assert set(form.blocks[1].branches) == {"transformer.h.1.attn", "transformer.h.1.mlp"}


@pytest.mark.parametrize("name", ["vgg11", slow("inception_v3")])
def test_a_plain_network_is_refused(name):
    """On the meta device: the refusal needs no numbers."""
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        image = torch.empty(2, *model.pretrained_cfg["input_size"])
    with pytest.raises(NotResidualError, match=r"no residual addition among its \d+ additions(.|\n)*unbraid\.chain\("):
        trace(model, image)


def test_the_zoo_has_a_model_of_every_family_of_timm():
    from timm.models import _registry

    from zoo.timm_models import KNOWN

    assert {_registry._model_to_module[name] for name in KNOWN} == set(timm.list_modules())
