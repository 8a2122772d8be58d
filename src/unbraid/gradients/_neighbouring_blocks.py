"""Whether a network's gradients at neighbouring inputs are alike: what shattering is, for a diagnosis."""

import torch
from torch import Tensor

from unbraid.errors import UnbraidError
from unbraid.form import ResidualForm
from unbraid.gradients._input_autocorrelation import Autocorrelation, input_autocorrelation, line
from unbraid.results import first_float
from unbraid.sweep import Batches, each_batch

__all__ = ["neighbours"]

_LINES, _POINTS = 4, 64
_LARGE, _FEWER = 50_000, (2, 32)  # numbers of an example from which on there are fewer lines and points


def neighbours(form: ResidualForm, batches: Batches) -> tuple[Autocorrelation | None, str]:
    """The autocorrelation of the gradient along lines between examples, or why it cannot be taken."""
    batch = next(iter(each_batch(form, batches)))
    given = [*((None, value) for value in batch.args), *batch.kwargs.items()]
    if len(given) != 1 or not isinstance(given[0][1], Tensor) or not given[0][1].is_floating_point():
        return None, "a line from one input to another needs a single input of floating point."
    name, inputs = given[0]
    if batch.size < 2:
        return None, "there is one example alone."
    if torch.finfo(form.precision).eps > torch.finfo(torch.float32).eps:
        return None, f"the rounding of {form.precision} hides how alike neighbours are."
    generator = torch.Generator().manual_seed(0)
    lines, points = _FEWER if inputs[0].numel() > _LARGE else (_LINES, _POINTS)
    grids = [line(inputs.detach().cpu(), points, generator=generator).to(inputs) for _ in range(lines)]
    weights: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        """The outputs with random weights: of probabilities, which sum to one, the sum would have no gradient."""
        output = first_float(form(x) if name is None else form(**{name: x}))
        if not weights:
            weights[:] = [torch.randn(output.shape[1:], generator=generator, device="cpu")]
        return output * weights[0].to(output)

    try:
        return input_autocorrelation([network], grids, lags=1), ""
    except (UnbraidError, ValueError, RuntimeError) as error:  # sizes that the form has fixed, examples that are one
        return None, f"the form cannot be run along a line: {str(error).splitlines()[0]}"
