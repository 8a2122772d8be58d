"""Spectra of models of others: the sum over lengths is the model's own output, or autograd's gradient of it."""

import pytest
import torch

from marks import quick, slow
from networks import F64, error
from real_models import IMAGES, LINEAR, TEXT, real, value
from unbraid.paths import all_paths, gradient_spectrum, top_paths, value_spectrum

# timm and transformers warn about their own and each other's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = [*LINEAR, *IMAGES, *TEXT]


@pytest.mark.parametrize("dtype", [F64, slow(torch.float32)], ids=["float64", "float32"])
@pytest.mark.parametrize("name", quick(MODELS, *LINEAR, "resnet18", "vit_tiny_patch16_224", "GPT2", "Llama", "Bloom"))
def test_values_by_length_sum_to_the_output(name, dtype):
    model, args, kwargs, form, target = real(name, dtype)
    found = value_spectrum(form, args, kwargs, target=target)
    # The sum against the parts' size: where they cancel, the output is small beside them.
    wanted = value(model, args, kwargs, target)
    size = max(wanted.abs().max().item(), (found.from_input.abs() + found.from_constants.abs()).max().item())
    exact = form.exact is form or dtype is not F64  # a float64 Llama computes its norms in float32, we do not
    bound = (1e-10 if exact else 1e-5) if dtype is F64 else 1e-4
    assert (found.total() - wanted).abs().max().item() < bound * size
    assert found.error < (1e-10 if dtype is F64 else 1e-4)
    assert found.from_input.abs().max() > 1e-6 * size  # something travels the paths
    assert len(found.counts) == len(found.from_input) == len(form.path_counts())


@pytest.mark.parametrize("name", quick([*IMAGES, LINEAR[-1]], "resnet18", LINEAR[-1]))
def test_gradients_by_length_sum_to_the_model_s_gradient(name):
    """Autograd on the untouched model at its input."""
    model, args, kwargs, form, target = real(name)
    leaf = args[0].clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
    found = gradient_spectrum(form, args, kwargs, target=target)
    assert error(found.total(), wanted) < 1e-10
    assert found.error < 1e-10
    assert list(found.counts) == form.path_counts()
    assert found.norms.max() > 0


@pytest.mark.parametrize("name", ["GPT2", "Bloom"])
def test_gradients_of_language_models_at_the_embedding(name):
    model, args, kwargs, form, (position, index) = real(name)
    embedding = model.transformer.wte if name == "GPT2" else model.transformer.word_embeddings
    leaf = embedding(kwargs["input_ids"]).detach().requires_grad_()
    output = model(inputs_embeds=leaf, use_cache=False).logits
    (wanted,) = torch.autograd.grad(output[:, position, index].sum(), leaf)
    found = gradient_spectrum(form, args, kwargs, target=(position, index))
    assert found.total().shape == wanted.shape
    # BLOOM computes its scores in float32 whatever the model's type: the spectrum says how far that is away.
    departs = error(found.total(), wanted)
    assert departs < (1e-10 if form.exact is form else 1e-6)
    assert departs == pytest.approx(found.model_error, rel=1e-3, abs=1e-12)
    assert found.error < 1e-10


@pytest.mark.parametrize("name", ["GPT2", "vit_tiny_patch16_224"])
def test_all_paths_of_real_models_gather_into_their_spectra(name):
    """Two algebras of the walk, one answer; and the paths sum to the output."""
    model, args, kwargs, form, target = real(name)
    paths = all_paths(form, args, kwargs, target=target)
    assert error(paths.values.sum(0) + paths.constants, value(model, args, kwargs, target)) < 1e-10
    spectrum = value_spectrum(form, args, kwargs, target=target)
    gathered = torch.zeros_like(spectrum.from_input).index_add_(0, paths.lengths, paths.values)
    assert error(gathered, spectrum.from_input) < 1e-10
    assert torch.bincount(paths.lengths).tolist() == list(spectrum.counts)
    best = top_paths(form, args, kwargs, target=target, k=3)
    merits = paths.values.abs().mean(1)
    assert torch.equal(best.values.abs().mean(1), merits.sort(descending=True).values[:3])
