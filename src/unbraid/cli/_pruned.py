"""What a pruned model is ranked, healed and tested on, and how it is kept."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unbraid import Pruning, ResidualForm, _folder, trace
from unbraid._claim import claimed
from unbraid.cli._sizes import check_takes, examples_of
from unbraid.cli.models._loaded import Loaded
from unbraid.data import Dataset
from unbraid.errors import CheckpointError, NotResidualError, TraceError
from unbraid.nn import PlainNetwork, ResidualNetwork
from unbraid.pruning import is_pretrained
from unbraid.train import Recipe, Run, fit, save
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
    def of(spec: str, loaded: Loaded, data: str | None, size: str | None = None) -> "Task":
        """The task of a MODEL argument.

        Raises:
            ValueError: the model takes other inputs than the data, or gives no scores of classes for them.
        """
        recipe, seed = Recipe(), 0
        if Path(spec).is_dir():
            run = load_run(spec)
            recipe, seed = run.recipe, run.seed
        else:
            run = None
        if data is None and run is None:
            return Task(loaded, None, recipe, seed)
        if len(loaded.args) != 1 or loaded.kwargs:
            raise ValueError(f"{loaded.name} takes more than one input; --data gives one.")
        if data is None and size is not None:
            raise ValueError("--size scales the images of --data, and none is given.")
        dataset = run.dataset() if run is not None and data is None else examples_of(str(data), size)
        dataset = dataset.flat() if loaded.args[0].ndim == 2 else dataset
        _check_fits(loaded, dataset)
        return Task(loaded, dataset, recipe, seed)

    def batches(self, examples: int) -> list[tuple[Any, Any]]:
        """What to rank on: examples of the training part, else the inputs of the trace."""
        if self.data is None:
            return [(dict(self.loaded.kwargs) if self.loaded.kwargs else self.loaded.args, None)]
        return _batches(self.data.train_inputs[:examples], self.data.train_labels[:examples])

    @staticmethod
    def metric(output: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy, in nats."""
        return cross_entropy(output, labels)

    def asked(self, pruned: Pruning, epochs: int, lr: float | None) -> dict[str, Any]:
        """What tells one pruning from another, before its healing."""
        digest = hashlib.sha256()
        for name, tensor in pruned.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        removed = [list(one) if isinstance(one, tuple) else one for one in pruned.removed]
        return {
            "removal": removed,
            "healing": self._recipe(epochs, lr) if epochs else None,
            "model": digest.hexdigest(),
        }

    def heal(
        self, pruned: Pruning, epochs: int, lr: float | None, folder: Path | None, step: Callable[[str], None]
    ) -> Run:
        """Train the smaller model on for some epochs, or for those that are left where the folder holds some."""
        assert self.data is not None
        recipe = Recipe(**self._recipe(epochs, lr))
        run = fit(
            pruned.model,
            self.data,
            recipe,
            seed=self.seed,
            device="cpu",
            folder=folder,
            resume=True,
            on_epoch=lambda done: step(f"epoch {done.epoch}, test error {done.test_error:.1f} %"),
        )
        if run.diverged is not None:
            raise ValueError(f"healing diverged at step {run.diverged}; give a smaller --lr than {recipe.lr:g}.")
        return run

    def _recipe(self, epochs: int, lr: float | None) -> dict[str, Any]:
        return asdict(replace(self.recipe, epochs=epochs, lr=self.recipe.lr / 5 if lr is None else lr))

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

    def keep(self, form: ResidualForm, pruned: Pruning, folder: Path, *, healed: Run | None) -> dict[str, str]:
        """Write the smaller model into a folder, in the fullest way that its kind has; over what a kill left of it.

        Returns:
            The folder, what can load it, and a sentence that says so.
        """
        if _describes_itself(pruned.model) and self.data is not None:
            if healed is not None and healed.folder is not None:
                copies = {path.name: partial(shutil.copyfile, path) for path in healed.folder.iterdir()}
                copies.pop(_folder.SUMS)
                with claimed(folder, "writing into"):
                    _folder.write(folder, copies)
            elif not _folder.exists(folder):
                save(pruned.model, self.data, folder, self.recipe, seed=self.seed)
            return _kept(folder, "run", f"a folder like those of unbraid train: unbraid trace {folder}")
        if pruned.how == "members" and is_pretrained(pruned.model):
            try:
                pruned.model.save_pretrained(folder)  # type: ignore[operator]  # a method of transformers' models
            except SafetensorError as error:  # how it reports a full disk
                raise CheckpointError(f"{folder} cannot be written: {error}") from error
            return _kept(folder, "pretrained", f"from_pretrained reads it, and so does: unbraid trace hf:{folder}")
        folder.mkdir(parents=True, exist_ok=True)
        _folder.write_tensors(pruned.model.state_dict(), folder / "model.safetensors")
        said = "model.safetensors holds its weights"
        try:
            now = (
                trace(pruned.model, self.loaded.args, self.loaded.kwargs)
                if healed is not None
                else form.without(*pruned.removed)
            )
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
    scores = check_takes(loaded, data)
    fits = isinstance(scores, Tensor) and scores.ndim == 2 and scores.shape[1] >= data.classes
    if not fits:
        came = list(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ValueError(
            f"{loaded.name} must give scores [batch, classes] for the {data.classes} classes of {data.name}; "
            f"it gives {came}."
        )
