"""The head applied to partial sums. Oracle: the network's own head module, called on sums made by hand."""

import pytest
import torch

from book_networks import LINEAR, Reader, batch, features, images
from networks import error, lively, normal
from unbraid.form import trace
from unbraid.terms import unravel


@pytest.mark.parametrize("make", [features, images])
@pytest.mark.parametrize("order", [LINEAR[7], LINEAR[3]])
def test_rows_are_the_head_of_partial_sums(make, order):
    network = make(order=order if make is features else order.replace("linear", "conv"))
    x = batch(network)
    terms = unravel(trace(network, x), x)
    lens = terms.lens()
    partial = torch.zeros_like(terms.stream)
    with torch.no_grad():
        for k, term in enumerate(terms.values):
            partial = partial + term
            assert error(lens.outputs[k], network.head(partial)) < 1e-12
        assert error(lens.outputs[-1], network(x)) < 1e-11
    assert lens.names == terms.names
    assert lens.scale == "recomputed"


def test_with_a_frozen_scale_rows_differ_by_one_term_s_contribution():
    """The norm keeps the scale of the whole stream, worked by hand; recomputed, it does not."""
    network = lively(Reader())
    x = normal(3, 5, 6)
    terms = unravel(trace(network, x), x)
    frozen, measured = terms.lens("frozen"), terms.lens()
    assert error(frozen.outputs[-1], network(x).detach()) < 1e-11
    scale = torch.rsqrt(terms.stream.var(-1, correction=0, keepdim=True) + network.norm.eps)
    with torch.no_grad():
        for k in (1, 2):
            term = terms.values[k]
            alone = (term - term.mean(-1, keepdim=True)) * scale * network.norm.weight @ network.head.weight.T
            assert error(frozen.outputs[k] - frozen.outputs[k - 1], alone) < 1e-11
    assert error(frozen.outputs[0], measured.outputs[0]) > 1e-2


def test_the_scale_has_two_names():
    x = normal(3, 5, 6)
    with pytest.raises(ValueError, match='lens: scale is "recomputed" or "frozen"; \'live\' came'):
        unravel(trace(lively(Reader()), x), x).lens("live")
