import random

import numpy as np
import pytest
import sklearn.datasets
import torch

from unbraid import data
from unbraid.errors import DataError


@pytest.fixture(scope="module")
def mnist1d():
    return data.mnist1d()


def test_mnist1d_has_the_published_size(mnist1d):
    assert mnist1d.train_inputs.shape == (4000, 40)
    assert mnist1d.test_inputs.shape == (1000, 40)
    assert mnist1d.classes == 10
    assert sorted(set(mnist1d.train_labels.tolist())) == list(range(10))


def test_mnist1d_is_standardised_on_the_training_part_alone(mnist1d):
    """The package standardises both parts together; here only the training part has 0 and 1."""
    train, test = mnist1d.train_inputs.double(), mnist1d.test_inputs.double()
    assert abs(train.mean()) < 1e-7
    assert abs(train.std(correction=0) - 1) < 1e-7
    assert abs(test.mean()) + abs(test.std(correction=0) - 1) > 1e-4


def test_mnist1d_undone_is_what_the_package_makes(mnist1d):
    from mnist1d.data import get_dataset_args, make_dataset

    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    made = make_dataset(get_dataset_args())
    random.setstate(python)
    np.random.set_state(array)  # noqa: NPY002
    raw = mnist1d.test_inputs.double() * mnist1d.std + mnist1d.mean
    np.testing.assert_allclose(raw.numpy(), made["x_test"], atol=1e-6)
    np.testing.assert_array_equal(mnist1d.test_labels.numpy(), made["y_test"])


def test_mnist1d_leaves_every_global_generator_alone():
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    other = data.mnist1d(seed=7)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    assert not torch.equal(other.train_inputs, data.mnist1d().train_inputs)


def test_digits_are_the_real_images_apart_and_complete():
    digits = data.digits()
    assert digits.train_inputs.shape == (1438, 1, 8, 8)
    assert digits.test_inputs.shape == (359, 1, 8, 8)
    both = torch.cat([digits.train_inputs, digits.test_inputs]).double() * digits.std + digits.mean
    ours = {tuple(row) for row in both.round().int().flatten(1).tolist()}
    theirs = {tuple(row) for row in sklearn.datasets.load_digits().data.astype(int).tolist()}
    assert len(both) == 1797
    assert ours == theirs


def test_digits_split_by_the_seed():
    first, again, other = data.digits(seed=1), data.digits(seed=1), data.digits(seed=2)
    assert torch.equal(first.test_inputs, again.test_inputs)
    assert not torch.equal(first.test_inputs, other.test_inputs)


def test_flat_makes_vectors_and_keeps_the_rest():
    digits = data.digits()
    flat = digits.flat()
    assert flat.features == (64,)
    assert torch.equal(flat.train_inputs[3], digits.train_inputs[3].flatten())
    assert repr(flat) == "Dataset('digits': 1,438 to train on, 359 to test on, inputs of 64, 10 classes)"


@pytest.mark.parametrize(
    ("make", "module", "package"),
    [(data.mnist1d, "mnist1d.data", "mnist1d"), (data.digits, "sklearn.datasets", "scikit-learn")],
)
def test_a_missing_package_is_named_with_the_command(monkeypatch, make, module, package):
    monkeypatch.setitem(__import__("sys").modules, module, None)  # what Python itself does to forbid an import
    with pytest.raises(DataError, match=rf"needs the package {package}.*pip install 'unbraid\[data\]'"):
        make()


def test_by_name(tmp_path):
    assert data.by_name("digits").name == "digits"
    np.savez(tmp_path / "mine.npz", x=np.eye(10), y=np.arange(10) % 2)
    assert data.by_name(tmp_path / "mine.npz").classes == 2
    with pytest.raises(DataError, match=r'"mnist" is no data set: the built-in ones are mnist1d and digits'):
        data.by_name("mnist")
    with pytest.raises(DataError, match=r"gone\.npz: there is no such file"):
        data.by_name("gone.npz")


def test_batches_cover_everything_once_and_shuffle_anew():
    examples = data.digits().train
    generator = torch.Generator().manual_seed(0)
    shuffled = data.batches(examples, 100, generator=generator)
    first, second = [list(shuffled) for _ in range(2)]
    assert len(shuffled) == len(first) == 15
    assert [len(labels) for _, labels in first] == [100] * 14 + [38]
    inputs = torch.cat([inputs for inputs, _ in first])
    assert not torch.equal(inputs, torch.cat([inputs for inputs, _ in second]))
    # Each image with its own label, each exactly once.
    pairs = sorted((*x.flatten().tolist(), int(y)) for batch in first for x, y in zip(*batch, strict=True))
    assert pairs == sorted(
        (*x.flatten().tolist(), int(y)) for x, y in zip(examples.inputs, examples.labels, strict=True)
    )


def test_batches_without_a_generator_keep_the_order():
    examples = data.digits().test
    kept = data.batches(examples, 64)
    assert torch.equal(torch.cat([labels for _, labels in kept]), examples.labels)
    assert torch.equal(torch.cat([labels for _, labels in kept]), examples.labels)  # a second pass
    with pytest.raises(ValueError, match="at least 1 example; size is 0"):
        data.batches(examples, 0)
