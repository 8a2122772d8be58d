"""What the tables of gates and mixes rest on."""

import pytest
import torch
from torch import sigmoid

from kinds.checks import SUMS, skips_alone
from kinds.gates import FS, LAYERS, network
from kinds.highways import CASES as HIGHWAYS
from kinds.known import ROWS, Known
from kinds.mixes import CASES as MIXES
from kinds.mixes import apart
from kinds.trails import binomials
from marks import slow
from unbraid import all_paths


def test_the_mix_of_mhc_is_doubly_stochastic():
    """Otherwise it would be no example of one: columns exactly, by the last step, and rows nearly."""
    network = MIXES["doubly stochastic"].network
    r, _, _ = network.mix[0](apart(ROWS))
    assert torch.allclose(r.sum(-2), torch.ones_like(r.sum(-2)))
    assert torch.allclose(r.sum(-1), torch.ones_like(r.sum(-1)), atol=0.05)
    assert not torch.allclose(r, r.mT, atol=0.05)


@pytest.mark.parametrize("name", ["x + t(f - x)", slow("lerp"), slow("f + c(x - f)")])
def test_the_path_of_skips_alone_is_the_product_of_the_carry_gates(name):
    """Π (1 − t)·x through the head, and nothing else of x."""
    case = HIGHWAYS[name]
    x = carried = case.inputs[0]
    with torch.no_grad():
        for f, gate in zip(case.network.f, case.network.t, strict=True):
            t = sigmoid(gate(x))
            x, carried = (1 - t) * x + t * f(x), (1 - t) * carried
        expected = carried @ case.network.head.weight[1]
    assert float((skips_alone(case) - expected).abs().max()) <= SUMS * float(expected.abs().max())
    paths = all_paths(case.form, case.inputs, target=1)
    (place,) = (paths.masks == -1).all(1).nonzero().flatten().tolist()
    assert float((paths.values[place] - expected).abs().max()) <= SUMS * float(paths.values.abs().max())


@pytest.mark.slow
def test_a_gate_beside_no_branch_is_no_skip():
    """g(x)·x alone, as in squeeze and excitation: nothing is added."""

    def story(net, mark, x):
        for k in range(LAYERS):
            x = x + mark(f"f{k}", net.f[k](x) * sigmoid(net.t[k](x)))
        return net.head(x * sigmoid(net.t[0](x)))

    form = Known(network(story), FS, binomials(LAYERS)).form
    assert [(b.skip, b.join) for b in form.all_blocks] == [("identity", "sum")] * LAYERS
