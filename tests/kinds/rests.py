"""A skip over whole blocks, x + rest(x): known answers. Those blocks are nested in it."""

from kinds.known import Known
from kinds.one_trunk import FS, LAYERS, one, several
from kinds.trails import START, binomials, chain, join, lengths


def residual_in_residual(net, mark, x):
    """x + rest(x), where rest is three blocks and nothing else."""
    x = net.embed(x)
    h = x
    for k in range(LAYERS):
        h = h + mark(f"f{k}", net.f[k](h))
    return net.head(x + mark("outer", h))


def scaled_rest(net, mark, x):
    """RRDB's: two outer skips, each over blocks of its own, of which the last is scaled."""
    x = net.embed(x)
    for outer in range(2):
        h = x
        for k in range(2):
            h = h + mark(f"f{outer}{k}", net.f[2 * outer + k](h))
        x = x + mark(f"outer{outer}", 0.2 * h)
    return net.head(x)


def of_scaled_rest():
    x = START
    for outer in range(2):
        x = join(f"outer{outer}", x, chain(f"f{outer}0 f{outer}1", x))
    return lengths(x, "outer0", "outer1")


RESTS = {f"f{outer}{k}": f"outer{outer}" for outer in range(2) for k in range(2)}


CASES = {
    "residual in residual": Known(
        one(residual_in_residual),
        "outer",
        binomials(1),
        nested=dict.fromkeys(FS.split(), "outer"),
        opened=lengths(join("outer", START, chain(FS)), "outer"),
    ),
    "residual in residual, scaled": Known(
        one(scaled_rest, f=several(count=4)),
        "outer0 outer1",
        binomials(2),
        nested=RESTS,
        opened=of_scaled_rest(),
    ),
}
