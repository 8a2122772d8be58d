"""What a pruned model is ranked, healed and tested on, and how it is kept."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unbraid import Pruning, ResidualForm, trace
from unbraid.cli._loaded import Loaded
from unbraid.data import Dataset, by_name
from unbraid.errors import NotResidualError, TraceError
from unbraid.nn import PlainNetwork, ResidualNetwork
from unbraid.prune import is_pretrained
from unbraid.train import Recipe, fit, save
from unbraid.train import load as load_run

__all__ = ["Task"]

_BATCH = 128


@dataclass(frozen=True, eq=False)
class Task:
    """A model with what is known about its training.

    Attributes:
        loaded: the model.
        data: examples that fit it; None where none were named.
        recipe: how it was trained, if it was trained here.
        seed: of that training.
    """

    loaded: Loaded
    data: Dataset | None
    recipe: Recipe
    seed: int

    @staticmethod
    def of(spec: str, loaded: Loaded, data: str | None) -> "Task":
        """The task of a MODEL argument.

        Raises:
            ValueError: the model takes other inputs than the data, or gives no scores of classes for them.
        """
        recipe, seed = Recipe(), 0
        if Path(spec).is_dir():
            run = load_run(spec)
            recipe, seed, data = run.recipe, run.seed, data or run.data
        if data is None:
            return Task(loaded, None, recipe, seed)
        if len(loaded.args) != 1 or loaded.kwargs:
            raise ValueError(f"{loaded.name} takes more than one input; --data gives one.")
        found = by_name(data)
        found = found.flat() if loaded.args[0].ndim == 2 else found
        _check_fits(loaded, found)
        return Task(loaded, found, recipe, seed)

    def batches(self, examples: int) -> list[tuple[Any, Any]]:
        """What to rank on: examples of the training part, else the inputs of the trace."""
        if self.data is None:
            return [(dict(self.loaded.kwargs) if self.loaded.kwargs else self.loaded.args, None)]
        return _batches(self.data.train_inputs[:examples], self.data.train_labels[:examples])

    @staticmethod
    def metric(output: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy, in nats."""
        return cross_entropy(output, labels)

    def heal(
        self, made: Pruning, epochs: int, lr: float | None, folder: Path | None, step: Callable[[str], None]
    ) -> nn.Module:
        """Train the smaller model on for some epochs; the folder is filled where a run's folder can hold it."""
        assert self.data is not None
        recipe = replace(self.recipe, epochs=epochs, lr=self.recipe.lr / 5 if lr is None else lr)
        run = fit(
            made.model,
            self.data,
            recipe,
            seed=self.seed,
            device="cpu",
            folder=folder if _describes_itself(made.model) else None,
            on_epoch=lambda done: step(f"epoch {done.epoch}, test error {done.test_error:.1f} %"),
        )
        if run.diverged is not None:
            raise ValueError(f"healing diverged at step {run.diverged}; give a smaller --lr than {recipe.lr:g}.")
        return run.network

    @torch.no_grad()
    def accuracy(self, network: nn.Module) -> float | None:
        """The share of the test part that a network answers rightly, in %; None where there are no data."""
        if self.data is None:
            return None
        network.eval()
        right = 0
        for inputs, labels in _batches(self.data.test_inputs, self.data.test_labels):
            right += int((network(inputs).argmax(1) == labels).sum())
        return 100 * right / len(self.data.test_labels)

    def keep(self, form: ResidualForm, made: Pruning, folder: Path, *, healed: bool) -> dict[str, str]:
        """Write the smaller model into a folder, in the fullest way that its kind has.

        Returns:
            The folder, what can load it, and a sentence that says so.
        """
        if _describes_itself(made.model) and self.data is not None:
            if not healed:  # training has written it already
                save(made.model, self.data, folder, self.recipe, seed=self.seed)
            return _kept(folder, "run", f"a folder like those of unbraid train: unbraid trace {folder}")
        if made.how == "members" and is_pretrained(made.model):
            made.model.save_pretrained(folder)  # type: ignore[operator]  # a method of transformers' models
            return _kept(folder, "pretrained", f"from_pretrained reads it, and so does: unbraid trace hf:{folder}")
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in made.model.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        said = "model.safetensors holds its weights"
        try:
            now = trace(made.model, self.loaded.args, self.loaded.kwargs) if healed else form.without(*made.removed)
            now.save(folder / "form")
            said += ", form its form, which ResidualForm.load reads without the model's code"
        except (TraceError, NotResidualError) as error:
            said += f"; its form could not be saved: {str(error).splitlines()[0]}"
        return _kept(folder, "form", said)


def _batches(inputs: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True))


def _kept(folder: Path, kind: str, said: str) -> dict[str, str]:
    return {"folder": str(folder), "kind": kind, "said": f"saved in {folder}: {said}"}


def _describes_itself(network: nn.Module) -> bool:
    """Whether the network's config says how to build it."""
    return isinstance(network, ResidualNetwork | PlainNetwork) and network.config is not None


def _check_fits(loaded: Loaded, data: Dataset) -> None:
    inputs = data.test_inputs[:2]
    try:
        with torch.no_grad():
            scores = loaded.model(inputs)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        raise ValueError(
            f"{loaded.name} does not take the inputs of {data.name}, {[2, *data.features]}: {said}"
        ) from error
    fits = isinstance(scores, Tensor) and scores.ndim == 2 and scores.shape[1] >= data.classes
    if not fits:
        came = list(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ValueError(
            f"{loaded.name} must give scores [batch, classes] for the {data.classes} classes of {data.name}; "
            f"it gives {came}."
        )
