from jaxtyping import Float
from torch import Tensor


def effective(share: Float[Tensor, " lengths"], part: float = 0.95) -> tuple[int, int]:
    """The shortest interval of lengths whose shares sum to at least `part`, the first of them if there are several."""
    shares = share.double().tolist()
    best = (0, len(shares) - 1)
    for low in range(len(shares)):
        held = 0.0
        for high in range(low, len(shares)):
            held += shares[high]
            if held >= part - 1e-12:
                if high - low < best[1] - best[0]:
                    best = (low, high)
                break
    return best
