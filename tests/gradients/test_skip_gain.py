"""The mixes of hyper-connections as matrices, and what their products amplify."""

import pytest

from kinds import mixes
from networks import error
from unbraid import gradients
from unbraid.gradients import skip_gain

SPELLINGS = ["einsum", "from the right", "folded into the batch", "one product for both"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_maps_are_what_the_model_mixes_with(spelling):
    case = mixes.CASES[f"dynamic, {spelling}"]
    found = skip_gain(case.form, case.inputs)
    network, (x,) = case.network, case.inputs
    streams = mixes.apart(x)
    for k, matrix in enumerate(found.maps):
        r, p, q = network.mix[k](streams)
        assert error(matrix, r.detach()) <= 1e-12
        z = (p.unsqueeze(-1) * streams).sum(-2)
        streams = r @ streams + q.unsqueeze(-1) * network.f[k](z).unsqueeze(-2)
    assert found.error <= 1e-12


def test_the_composite_gains_are_those_of_the_products():
    case = mixes.CASES["dynamic, einsum"]
    found = skip_gain(case.form, case.inputs)
    first, second, third = found.maps
    product = third @ second @ first
    assert float(found.forward[0, 2]) == pytest.approx(float(product.abs().sum(-1).max()), rel=1e-12)
    assert float(found.backward[0, 2]) == pytest.approx(float(product.abs().sum(-2).max()), rel=1e-12)
    assert bool(found.forward.tril(-1).isnan().sum() == 3)
    assert found.gain == max(float(found.forward.nan_to_num().max()), float(found.backward.nan_to_num().max()))


def test_doubly_stochastic_mixes_hardly_amplify_and_free_ones_do():
    free, bound = (
        skip_gain(c.form, c.inputs) for c in map(mixes.CASES.get, ("dynamic, einsum", "doubly stochastic, einsum"))
    )
    assert bound.gain < 1.2 < free.gain


def test_a_network_without_mixes_is_told():
    from kinds import highways

    case = highways.CASES["lerp"]
    with pytest.raises(ValueError, match=r"^skip_gain: no skip of this form mixes streams; its skips are of .*'gate'"):
        skip_gain(case.form, case.inputs)


def test_it_is_shown():
    case = mixes.CASES["dynamic, einsum"]
    found = gradients.skip_gain(case.form, case.inputs)
    assert [row["block"] for row in found.rows()] == list(found.names)
    assert found.plot() is not None
    assert "gain" in found.to_dict() or found.scalars()["gain"] == found.gain
