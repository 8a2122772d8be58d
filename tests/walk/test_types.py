"""Sums in other types than the model's: float64 inside a float32 model, complex streams."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import unbraid
from networks import F64, error, lively, mlp, normal
from unbraid.gradients import derivative_chain

LABELS = torch.arange(3)


class Wide(nn.Module):
    """Sums in float64, as some add to keep their digits; and the stream back in float32, or not."""

    def __init__(self, back):
        super().__init__()
        self.branches, self.head, self.back = nn.ModuleList(mlp(6) for _ in range(3)), nn.Linear(6, 4), back

    def forward(self, x):
        for branch in self.branches:
            x = x.double() + branch(x.float()).double()
            x = x.float() if self.back else x
        return self.head(x.float())


def analyses(form, x):
    return {
        "attribute": unbraid.attribute(form, x, target=1),
        "Terms.attribute": unbraid.unravel(form, x).attribute(1),
        "value_spectrum": unbraid.value_spectrum(form, x, target=1),
        "all_paths": unbraid.all_paths(form, x, target=1),
        "gradient_spectrum": unbraid.gradient_spectrum(form, x, target=1),
        "gradient_parts": unbraid.gradient_parts(form, x, target=1),
        "derivative_chain": derivative_chain(form, x),
        "mean_spectrum": unbraid.mean_spectrum(form, [(x, LABELS)]),
    }


@pytest.mark.parametrize("back", [True, False])
def test_sums_in_float64_of_a_float32_model(back):
    model, x = lively(Wide(back), dtype=torch.float32), normal(3, 6, dtype=torch.float32)
    form = unbraid.trace(model, x)
    assert form.precision is torch.float32
    found = analyses(form, x)
    assert all(one.error < 1e-4 for one in found.values())
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert error(found["gradient_spectrum"].total(), wanted) < 1e-5
    assert error(found["value_spectrum"].total().float(), model(x)[:, 1].detach()) < 1e-5
    assert unbraid.lesion(form, [(x, LABELS)], F.cross_entropy).examples == 3


class Spectral(nn.Module):
    """A trunk of complex numbers."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.view_as_complex(normal(3, 4, 4, 2) / 2))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = torch.fft.rfft(x)
        for weight in self.weights:
            h = h + torch.view_as_complex(torch.tanh(torch.view_as_real(h @ weight)))
        return self.head(torch.fft.irfft(h, n=6))


class Fourier(nn.Module):
    """FNet: a branch that is a Fourier transform."""

    def __init__(self):
        super().__init__()
        self.branches, self.head = nn.ModuleList(mlp(6) for _ in range(2)), nn.Linear(6, 4)

    def forward(self, x):
        for branch in self.branches:
            x = F.layer_norm(x + torch.fft.fft2(x).real, (6,))
            x = F.layer_norm(x + branch(x), (6,))
        return self.head(x.mean(1))


class Moduli(nn.Module):
    """A branch that reads the moduli of complex numbers."""

    def __init__(self):
        super().__init__()
        self.branches, self.head = nn.ModuleList(nn.Linear(6, 6) for _ in range(2)), nn.Linear(6, 4)

    def forward(self, x):
        for branch in self.branches:
            x = x + branch(torch.fft.fft(x).abs())
        return self.head(x)


COMPLEX = {
    "trunk": (Spectral, (3, 6)),
    "branch": (Fourier, (3, 4, 6)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_streams_are_split_like_real_ones(name):
    kind, shape = COMPLEX[name]
    model, x = kind().double().eval(), normal(*shape)
    form = unbraid.trace(model, x)
    assert form.precision is F64
    found = analyses(form, x)
    assert all(one.error < 1e-10 for one in found.values())
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert error(found["gradient_spectrum"].total(), wanted) < 1e-10
    assert error(found["value_spectrum"].total(), model(x)[:, 1].detach()) < 1e-10
    product = found["derivative_chain"].factors[0].jacobian
    for factor in found["derivative_chain"].factors[1:]:
        product = factor.jacobian @ product
    jacobian = torch.autograd.functional.jacobian(model, x).reshape(3, 4, 3, -1)
    assert error(product, torch.stack([jacobian[b, :, b] for b in range(3)])) < 1e-10


def test_what_is_said_of_complex_terms_and_signals():
    """Sizes are those of the moduli, and the mean over a data set keeps both parts; no part is dropped."""
    model, x = Spectral().double().eval(), normal(3, 6)
    form = unbraid.trace(model, x)
    terms = unbraid.unravel(form, x)
    assert error(terms.norms, terms.values.abs().square().flatten(1).mean(1).sqrt()) < 1e-12
    assert terms.plot() is not None
    signal = unbraid.signal(form, [(x, LABELS)])
    h = torch.fft.rfft(x)
    parts = torch.view_as_real(h).transpose(1, 2).flatten(0, 1)  # [examples and parts, channels]
    assert error(signal.source.variance[0], parts.var(0, correction=0).mean()) < 1e-10
    branch = torch.view_as_complex(torch.tanh(torch.view_as_real(h @ model.weights[0].detach())))
    h = h + branch.mean(0)
    for weight in model.weights[1:].detach():
        h = h + torch.view_as_complex(torch.tanh(torch.view_as_real(h @ weight)))
    wanted = model.head(torch.fft.irfft(h, n=6)).mean().item()
    found = unbraid.lesion(form, [(x, LABELS)], lambda output, _: output.mean(), sets=[0], replace="mean")
    assert abs(found.metrics[0] - wanted) < 1e-10


def test_a_complex_modulus_has_no_rule_and_says_so():
    model, x = Moduli().double().eval(), normal(3, 6)
    form = unbraid.trace(model, x)
    assert unbraid.gradient_spectrum(form, x, target=1).error < 1e-10
    with pytest.raises(unbraid.InexactError, match=r"no rule makes the operator aten\.abs\.default affine"):
        unbraid.value_spectrum(form, x, target=1)
