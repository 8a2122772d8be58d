"""Networks that lack blocks: what is left of them, and their config."""

import json

import pytest
import torch

from book_networks import batch, features, images
from networks import error
from unbraid.nn import build


def test_a_network_without_a_block_is_the_others_in_a_row():
    network = features(depth=4)
    x = batch(network)
    smaller = network.without(2)
    with torch.no_grad():
        h = network.stem(x)
        for k in (0, 1, 3):
            h = network.blocks[k](h)
        assert error(smaller(x), network.head(h)) < 1e-12
    assert [name for name, _ in smaller.blocks.named_children()] == ["0", "1", "3"]
    assert len(network.blocks) == 4
    assert smaller.blocks[0].branch is not network.blocks[0].branch


def test_skip_and_trunk_stay_where_they_do_something():
    network = images(order="conv norm act conv norm + act", shortcut="projection")
    projected = next(k for k, block in enumerate(network.blocks) if type(block.skip).__name__ == "Projection")
    smaller = network.without(projected)
    x = batch(network)
    with torch.no_grad():
        h = network.stem(x)
        for k, block in enumerate(network.blocks):
            h = block.after(block.skip(h)) if k == projected else block(h)
        assert error(smaller(x), network.head(h)) < 1e-12
    assert [name for name, _ in smaller.blocks[projected].named_children()] == ["skip", "after"]


@pytest.mark.parametrize("plain", [False, True], ids=["residual", "plain"])
def test_the_config_builds_it_again(plain):
    network = features(depth=4)
    network = network.plain() if plain else network
    smaller = network.without(3).without(1)
    assert smaller.config["without"] == [1, 3]
    assert "without" not in network.config
    again = build(json.loads(json.dumps(smaller.config))).double().eval()
    again.load_state_dict(smaller.state_dict())
    x = batch(network)
    assert torch.equal(again(x), smaller.eval()(x))


def test_without_nothing_and_without_what_is_not_there():
    network = features()
    assert network.without().config == network.config
    with pytest.raises(IndexError, match=r"there is no block 3; there are 0, 1, 2\."):
        network.without(3)
    with pytest.raises(IndexError, match=r"there is no layer 1; there are 0, 2\."):
        network.plain().without(1).without(1)


def test_a_plain_twin_of_part_of_a_network_has_no_config():
    assert features().without(1).plain().config is None
