"""Random plans of networks of every kind of block, and two fixed ones."""

from hypothesis import strategies as st

from networks import normal
from unbraid import trace
from woven import WIDTH, Woven

ORDERS = ("linear act", "act linear", "norm act linear", "linear act linear")


@st.composite
def plans(draw):
    """One to five blocks of any kind; a block of two branches or with a block inside counts for more paths."""
    blocks = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["simple", "simple", "parallel", "projected", "nested"]))
        # Beside a projection a branch of maxima and affine operations alone is no branch, by definition.
        acts = ["tanh", "gelu", "sigmoid"] if kind == "projected" else ["tanh", "relu", "gelu", "sigmoid"]
        blocks.append(
            (
                kind,
                draw(st.sampled_from(acts)),
                draw(st.sampled_from(ORDERS)),
                draw(st.sampled_from([1.0, 0.5, -0.3])),
                draw(st.sampled_from([None, None, "relu", "norm"])),
            )
        )
    return blocks


def chain(depth, act="tanh"):
    return [("simple", act, ORDERS[k % 4], (1.0, 0.5)[k % 2], None) for k in range(depth)]


EVERY = [
    ("simple", "gelu", "linear act linear", 1.0, "norm"),
    ("parallel", "tanh", "act linear", 0.5, None),
    ("nested", "sigmoid", "norm act linear", 1.0, None),
    ("projected", "gelu", "linear act", 1.0, "relu"),
    ("nested", "tanh", "act linear", -0.3, None),
]


def made(plan, batch=2, seed=0):
    network = Woven(plan, seed)
    x = normal(batch, WIDTH, seed=seed + 50)
    return network, x, trace(network, x)
