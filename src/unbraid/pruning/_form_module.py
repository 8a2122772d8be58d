"""A residual form as a module that can be trained."""

from dataclasses import replace
from typing import Any, final

from torch import Tensor, nn

from unbraid.form import ResidualForm
from unbraid.graph.state import storage_key
from unbraid.walk import run


@final
class FormModule(nn.Module):
    """y = form(x), with copies of the parameters that the form still reads, under the model's own names.

    It holds for the sizes for which the form holds.

    Args:
        form: any form; it stays as it is.
    Shape: that of the model.
    """

    def __init__(self, form: ResidualForm) -> None:
        super().__init__()
        self._form = replace(form, state={}, origin=None)  # the tensors are its own, and the model is not needed
        self._names = sorted(set[str]().union(*(segment.params for segment in form.segments)))
        copies: dict[object, Tensor] = {}  # tied parameters stay tied
        for name in self._names:
            tensor = form.state[name]
            key = storage_key(form.state, name)
            if key not in copies:
                copy = tensor.detach().clone()
                learned = name in form.learned and tensor.is_floating_point()
                copies[key] = nn.Parameter(copy) if learned else copy
            _put(self, name.split("."), copies[key])

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # the model's own signature, whatever it is
        """Return what the form returns."""
        state = {name: _tensor_at(self, name.split(".")) for name in self._names}
        signature = self._form.signature
        return signature.result(run(self._form.graph, state, signature.bind(args, kwargs)))


def _put(module: nn.Module, path: list[str], tensor: Tensor) -> None:
    """Register a tensor under a name with dots: one empty module a step."""
    for step in path[:-1]:
        if step not in module._modules:
            module.add_module(step, nn.Module())
        module = module._modules[step] or module
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(path[-1], tensor)
    else:
        module.register_buffer(path[-1], tensor)


def _tensor_at(module: nn.Module, path: list[str]) -> Tensor:
    for step in path[:-1]:
        module = module.get_submodule(step)
    tensor: Tensor | None = {**module._parameters, **module._buffers}[path[-1]]
    assert tensor is not None
    return tensor
