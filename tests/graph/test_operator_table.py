"""Each row of the table of operators, checked by numbers: its operator is called, and every trait is what it claims.

Of each set of traits the first operator is checked in every run, the others with the slow tests.
"""

from dataclasses import replace

import pytest
import torch

from operator_samples import ON_A_GPU, name_of, sample
from operator_traits import faults, frozen_faults
from unbraid.freeze import _rules
from unbraid.graph import _operator_table
from unbraid.graph.operators import TABLE, Attention, Frozen, Kind, Memory, Random

aten = torch.ops.aten

FIRSTS = {row: key for key, row in reversed(TABLE.items())}
KEYS = [
    pytest.param(key, id=name_of(key), marks=() if FIRSTS[row] is key else pytest.mark.slow)
    for key, row in TABLE.items()
]


def call_of(key):
    if key in ON_A_GPU:
        pytest.skip("a kernel of a GPU")
    return sample(key)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", KEYS)
def test_a_row_is_what_its_operator_does(key):
    assert faults(key, TABLE[key], call_of(key)) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", KEYS)
def test_frozen_an_operator_is_equal_at_the_input_and_affine(key):
    assert frozen_faults(key, TABLE[key], call_of(key)) == []


BROKEN = {
    "affine in a second operand": (aten.mul, {"affine": ((0, 1),)}, "affine in (0, 1)"),
    "affine in none": (aten.cumsum, {"affine": ()}, "affine in 0, which the row does not say"),
    "affine where it is not": (aten.exp, {"affine": ((0,),)}, "affine in (0,)"),
    "a norm that holds nothing": (aten.layer_norm, {"holds": None}, "affine in (0,)"),
    "moves": (aten.tril, {"kind": Kind.MOVES}, "moves"),
    "picks": (aten.neg, {"kind": Kind.PICKS}, "picks"),
    "pointwise": (aten.softmax, {"kind": Kind.POINTWISE}, "pointwise"),
    "mixes": (aten.mul, {"kind": Kind.MIXES}, "mixes"),
    "takes": (aten.tril, {"takes": True}, "takes"),
    "copies": (aten.flip, {"copies": True}, "copies"),
    "read by another": (aten.slice_scatter, {"reader": aten.narrow}, "reader"),
    "of sizes alone": (aten.relu, {"sizes_of": 0}, "sizes_of"),
    "draws": (aten.relu, {"random": Random.STANDARD}, "random"),
    "draws nothing": (aten.randn, {"random": None}, "random"),
    "another mean": (aten.rand, {"random": Random.STANDARD}, "the mean of what is drawn"),
    "other channels": (aten.conv2d, {"channels": -1}, "channels"),
    "a pattern": (aten.cumsum, {"attention": Attention.PATTERN}, "attention"),
    "read by index": (aten.as_strided, {"memory": None}, "memory"),
    "no shift": (aten.addmm, {"shifts": None}, "shifts"),
    "a shift": (aten.mm, {"shifts": 0}, "shifts"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_row_that_claims_something_else_is_caught(name):
    key, claim, fault = BROKEN[name]
    found = faults(key, replace(TABLE[key], **claim), sample(key))
    assert any(fault in one for one in found), found


@pytest.mark.parametrize(
    ("key", "rule", "fault"),
    [
        (aten.softmax, Frozen.LINEAR, "refused in 0"),
        (aten.relu, Frozen.DROPOUT, "not equal at the input in 0"),
        (aten.rms_norm, Frozen.LAYER_NORM, "not equal at the input in 0"),
        (aten.amax, Frozen.LINEAR, "not affine in 0"),
    ],
)
def test_another_rule_is_caught(key, rule, fault, monkeypatch):
    row = replace(TABLE[key], freeze=rule, kind=Kind.MIXES)
    monkeypatch.setitem(TABLE, key, row)
    assert fault in frozen_faults(key, replace(row, affine=((0,),)), sample(key))


def test_each_rule_has_a_function_and_is_used():
    assert {*_rules.RULES} == {*Frozen} == {row.freeze for row in TABLE.values()} - {None}


def test_each_trait_is_had_by_some_row():
    for trait, values in (("kind", Kind), ("random", Random), ("attention", Attention), ("memory", Memory)):
        assert {getattr(row, trait) for row in TABLE.values()} - {None} == {*values}, trait


def test_the_newest_torch_has_every_operator_and_another_may_lack_some(monkeypatch):
    if torch.__version__ >= "2.13":
        assert set() == _operator_table.ABSENT
    monkeypatch.setattr(_operator_table, "ABSENT", set())
    before = {**TABLE}
    _operator_table._rows(TABLE[aten.add], "of_no_version")
    assert {"of_no_version"} == _operator_table.ABSENT
    assert before == TABLE


def test_an_operator_has_one_row():
    with pytest.raises(AssertionError, match="two rows for add"):
        _operator_table._rows(TABLE[aten.mul], "add")


def test_an_operator_without_a_sample_fails():
    with pytest.raises(
        LookupError, match=r"no arguments for slow_conv3d: write some down in tests/operator_samples.py"
    ):
        sample(aten.slow_conv3d)
