"""An operator of another library is opaque, whatever its name: it traces, and what needs a rule says so."""

import pytest
import torch
from torch import Tensor, fx, nn

import unbraid
from networks import F64, normal
from unbraid.errors import InexactError
from unbraid.graph.operators import operator_of, random
from unbraid.graph.questions import carrier, mixing, name_of, shape_only

X = normal(3, 6)


@torch.library.custom_op("unbraid_tests::roll", mutates_args=())
def roll(x: Tensor) -> Tensor:
    """3·tanh, by the name of a movement."""
    return 3 * torch.tanh(x)


roll.register_fake(torch.empty_like)
roll.register_autograd(
    lambda ctx, grad: grad * (3 - ctx.saved_tensors[0].square() / 3),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
)


@torch.library.custom_op("unbraid_tests::rms_norm", mutates_args=())
def rms_norm(x: Tensor) -> Tensor:
    """x − 1, by the name of a norm, and with one argument alone."""
    return x - 1


rms_norm.register_fake(torch.empty_like)
rms_norm.register_autograd(lambda ctx, grad: grad.clone())

OPERATORS = [roll, rms_norm]
FOREIGN = pytest.mark.parametrize("foreign", OPERATORS, ids=["roll", "rms_norm"])


class Net(nn.Module):
    """x ← x + W·operator(x), or x ← operator(x) + W·x."""

    def __init__(self, operator, *, on_the_skip: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 4)
        self.operator = operator
        self.on_the_skip = on_the_skip

    def forward(self, x):
        for layer in self.layers:
            x = self.operator(x) + layer(x) if self.on_the_skip else x + layer(self.operator(x))
        return self.head(x)


def net(foreign, **options) -> nn.Module:
    torch.manual_seed(0)
    return Net(foreign, **options).to(F64).eval()


@FOREIGN
def test_nothing_is_known_by_a_name(foreign):
    node = fx.Graph().call_function(foreign._opoverload, (x := fx.Graph().placeholder("x"),))
    assert name_of(node) == foreign._qualname
    assert not shape_only(node)
    assert mixing(node)
    assert carrier(node, [x]) is None
    assert not random(node)
    assert operator_of(node).freeze is None


@FOREIGN
def test_in_a_branch_it_traces_and_the_gradient_by_length_is_exact(foreign):
    model = net(foreign)
    form = unbraid.trace(model, X)
    assert [block.skip for block in form.blocks] == ["identity"] * 3
    spectrum = unbraid.gradient_spectrum(form, X, target=1)
    leaf = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(spectrum.gradients.sum(0), gradient, rtol=1e-10, atol=1e-12)


@FOREIGN
def test_it_is_no_skip(foreign):
    """roll(x) + W·x: by its name it would be the identity."""
    form = unbraid.trace(net(foreign, on_the_skip=True), X)
    assert [block.skip for block in form.blocks] == ["projection"] * 3


@FOREIGN
@pytest.mark.parametrize("analysis", [unbraid.value_spectrum, unbraid.all_paths])
def test_what_needs_a_rule_says_that_there_is_none(foreign, analysis):
    form = unbraid.trace(net(foreign), X)
    name = foreign._qualname.replace("::", ".")
    expected = (
        rf"freeze: no rule makes the operator {name}\.default affine, in .*\n"
        r"  Nothing is known of an operator of 'unbraid_tests', whatever its name\."
    )
    with pytest.raises(InexactError, match=expected):
        analysis(form, X, target=1)
