"""A network kept without being trained."""

import pytest

from train._small import SHORT, by_hand, examples, network, same_bits
from unbraid import train
from unbraid.errors import CheckpointError


def test_what_is_saved_is_loaded_and_trained_on_as_if_from_the_start(tmp_path):
    made = network().without(1)
    run = train.save(made, examples(), tmp_path, SHORT, seed=3)
    assert run.history == ()
    kept = train.load(tmp_path)
    assert same_bits(kept.network, made)
    assert (kept.recipe, kept.seed, kept.data) == (SHORT, 3, "thirds")
    on = train.fit(kept.network, examples(), SHORT, seed=3, folder=tmp_path, resume=True, device="cpu")
    straight = train.fit(made, examples(), SHORT, seed=3, device="cpu")
    assert same_bits(on.network, straight.network)


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path):
    train.save(by_hand(), examples(), tmp_path)
    with pytest.raises(CheckpointError, match="there is a run here already; choose another folder"):
        train.save(by_hand(1), examples(), tmp_path)
    assert same_bits(train.load(tmp_path, network=by_hand(2)).network, by_hand())
