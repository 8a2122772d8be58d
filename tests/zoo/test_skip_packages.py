"""Packages that are there for one kind of skip, length by length against marks on their own modules.

They live in the environment of the zoo of other libraries (`.venv-more`), whose packages may be lent to these tests:

    PYTHONPATH=.venv-more/lib/python3.11/site-packages pytest tests/zoo/test_skip_packages.py
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import normal
from oracles.structure import Marks, Widened, begun, by_length, departure, marked
from unbraid.form import trace
from unbraid.paths import gradient_spectrum
from zoo.entry import integers

pytestmark = pytest.mark.slow
PATHS_OF_REVERSIBLE = 34  # 13 + 21, of three steps


def weighed(output: Tensor) -> Tensor:
    rows = output.flatten(1)
    return rows @ torch.linspace(-1, 1, rows.shape[1], dtype=rows.dtype)


def departed(model: nn.Module, x: Tensor, branches: Callable[[nn.Module], Iterable[nn.Module]], paths: int) -> float:
    """How far the form's gradients by length lie from those of the marks; counts of paths are compared on the way."""
    form = trace(model, (x,))
    assert sum(form.path_counts()) == paths
    found = gradient_spectrum(form, (x,), target=weighed)
    assert found.error <= 1e-10
    assert all(parameter.grad is None for parameter in model.parameters())
    marks, leaves = Marks(), [x.clone().requires_grad_()] if x.is_floating_point() else []
    beginning = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    with Widened(), marked(branches(model), marks):
        if beginning:
            with begun(beginning[0], leaves):
                scalar = weighed(model(x)).sum()
        else:
            scalar = weighed(model(leaves[0])).sum()
        expected = by_length(marks, scalar, leaves[0])
    return departure(found.gradients, expected)


class Streams(nn.Module):
    """Layers of hyper-connections whose weights are learned, and do not depend on the data."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        begin, self.widen, self.narrow = kind.get_init_and_expand_reduce_stream_functions(2, dim=8)
        branches = (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(3))
        self.layers = nn.ModuleList(begin(branch=f, layer_index=k) for k, f in enumerate(branches))

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        for layer in self.layers:
            x = layer(x)
        return self.narrow(x)


def test_hyper_connections():
    package = pytest.importorskip("hyper_connections")
    torch.manual_seed(0)
    model = Streams(package.HyperConnections).double().eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.static_alpha.add_(0.3 * torch.randn_like(layer.static_alpha))
            layer.static_beta.add_(0.3 * torch.randn_like(layer.static_beta))
    branches = [layer.branch for layer in model.layers]
    assert departed(model, normal(2, 5, 8), lambda _: branches, 8) <= 1e-8


def test_attention_residuals():
    package = pytest.importorskip("attn_res")
    settings = package.TransformerConfig(
        d_model=8, n_layers=4, n_heads=2, n_kv_heads=1, vocab_size=60, max_seq_len=16,
        attn_res_mode=package.AttnResMode.FULL, rope_theta=100.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = package.AttnResTransformer(settings).eval()
    for parameter in model.parameters():  # alone: the buffer of rotations is complex
        parameter.data = 0.5 * torch.randn(parameter.shape, dtype=torch.float64)
    assert departed(model, integers(2, 5), lambda net: net.layers, 16) <= 1e-8


def test_a_reversible_network_that_computes_its_states_anew():
    package = pytest.importorskip("revtorch")
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for _ in range(6)]
    steps = nn.ModuleList(package.ReversibleBlock(f, g) for f, g in zip(parts[::2], parts[1::2], strict=True))
    model = nn.Sequential(nn.Linear(5, 8), package.ReversibleSequence(steps, eagerly_discard_variables=False))
    model = model.append(nn.Linear(8, 3)).double().eval()
    assert departed(model, normal(2, 5), lambda _: parts, PATHS_OF_REVERSIBLE) <= 1e-8
