"""The order of operations of one block, as a value (figure 11.5)."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, final

from unbraid.nn._choice import suggestion

__all__ = ["TOKENS", "WEIGHT_TOKENS", "Order"]

WEIGHT_TOKENS = ("linear", "conv", "attention", "mlp")
TOKENS = (*WEIGHT_TOKENS, "norm", "act", "+")


@final
@dataclass(frozen=True)
class Order:
    """The order of operations of one residual block, written as a pattern such as `"norm act linear +"`.

    What stands before the `+` is the branch, what stands after it is applied after the addition:
    `"conv norm act conv norm + act"` is h ← act(h + norm(conv(act(norm(conv(h)))))).

    The order decides what a block can do (figure 11.5). With ReLU, the branch of `"linear act +"` ends in
    something never negative, so the block can only increase h; `"act linear +"` can add and subtract.

    Args:
        pattern: tokens `linear`, `conv`, `attention`, `mlp` (layers with weights; `mlp` is short for
            `linear act linear`), `norm`, `act` and exactly one `+`, separated by spaces. At least one layer with
            weights stands before the `+`.

    Attributes:
        pattern: the tokens, separated by single spaces; `str(order)` gives it back.
        before: the tokens of the branch.
        after: the tokens applied after the addition.

    Raises:
        ValueError: the pattern is none of the above; the message shows it with the wrong place marked.

    Examples:
        >>> order = Order("norm act linear norm act linear +")
        >>> order.before
        ('norm', 'act', 'linear', 'norm', 'act', 'linear')
        >>> Order("norm act linear +").repeat(2) == order
        True
    """

    pattern: str
    before: tuple[str, ...] = field(init=False, repr=False, compare=False)
    after: tuple[str, ...] = field(init=False, repr=False, compare=False)

    LINEAR_ACT: ClassVar["Order"]
    """Figure 11.5a. With ReLU it can only increase h."""
    ACT_LINEAR: ClassVar["Order"]
    """Figure 11.5b. It can increase and decrease h; the network must begin with a linear layer."""
    ACT_LINEAR_ACT_LINEAR: ClassVar["Order"]
    """Figure 11.5c: two layers in each branch."""
    ORIGINAL: ClassVar["Order"]
    """He et al. (2015): activation after the addition. He et al. (2016), figure 4a."""
    ADD_THEN_NORM: ClassVar["Order"]
    """Batch norm after the addition. He et al. (2016), figure 4b."""
    ACT_BEFORE_ADD: ClassVar["Order"]
    """Activation at the end of the branch: like figure 11.5a it can only increase h. Figure 4c."""
    ACT_ONLY_PREACTIVATION: ClassVar["Order"]
    """Activation before the convolution, norm after it. He et al. (2016), figure 4d."""
    PREACTIVATION: ClassVar["Order"]
    """Norm and activation before the convolution: the skip is untouched. He et al. (2016), figure 4e."""
    PRE_NORM: ClassVar[tuple["Order", "Order"]]
    """The two blocks of a transformer's layer, each with its norm first (GPT-2; Xiong et al. 2020)."""
    POST_NORM: ClassVar[tuple["Order", "Order"]]
    """The two blocks of a transformer's layer, each with its norm after the addition (Vaswani et al. 2017)."""

    def __post_init__(self) -> None:
        tokens = self.pattern.split()
        _check(tokens)
        plus = tokens.index("+")
        object.__setattr__(self, "pattern", " ".join(tokens))
        object.__setattr__(self, "before", tuple(tokens[:plus]))
        object.__setattr__(self, "after", tuple(tokens[plus + 1 :]))

    def __str__(self) -> str:
        return self.pattern

    @property
    def layers(self) -> int:
        """Number of layers with weights in the branch."""
        return sum(token in WEIGHT_TOKENS for token in self.before)

    def repeat(self, times: int) -> "Order":
        """Return the order whose branch is this one's, `times` over; what follows the addition stays.

        `"act linear +"`, two times, is `"act linear act linear +"`.

        Raises:
            ValueError: `times` is below 1.
        """
        if times < 1:
            raise ValueError(f"Order.repeat: times must be 1 or more, but is {times}")
        return Order(" ".join((*self.before * times, "+", *self.after)))


def _check(tokens: list[str]) -> None:
    """Refuse what is not an order, the first fault first."""
    if not tokens:
        raise _error("the pattern is empty", tokens, {0})
    for position, token in enumerate(tokens):
        if token not in TOKENS:
            raise _error(f'unknown token "{token}"', tokens, {position}, suggestion(token, TOKENS))
    pluses = [position for position, token in enumerate(tokens) if token == "+"]
    if not pluses:
        raise _error('no "+" says where the branch is added to the skip', tokens, {len(tokens)})
    if len(pluses) > 1:
        raise _error(f'{len(pluses)} "+" where one block has exactly one', tokens, set(pluses[1:]))
    branch = range(pluses[0])
    if not branch:
        raise _error('nothing before "+": the branch is empty', tokens, {0})
    if not any(tokens[position] in WEIGHT_TOKENS for position in branch):
        raise _error('no layer with weights before "+"', tokens, set(branch))


def _error(fault: str, tokens: list[str], wrong: set[int], hint: str = "") -> ValueError:
    """Show the pattern, carets under the tokens at the positions in `wrong`; one past the last is the end."""
    marks = [("^" if position in wrong else " ") * len(token) for position, token in enumerate(tokens)]
    # Neighbouring wrong tokens are one mark, the space between them included.
    carets = re.sub(r"(?<=\^) (?=\^)", "^", " ".join(marks) + "^" * (len(tokens) in wrong)).rstrip()
    return ValueError(f'Order: {fault}\n  "{" ".join(tokens)}"\n   {carets}\n  Tokens: {", ".join(TOKENS)}.{hint}')


Order.LINEAR_ACT = Order("linear act +")
Order.ACT_LINEAR = Order("act linear +")
Order.ACT_LINEAR_ACT_LINEAR = Order("act linear act linear +")
Order.ORIGINAL = Order("conv norm act conv norm + act")
Order.ADD_THEN_NORM = Order("conv norm act conv + norm act")
Order.ACT_BEFORE_ADD = Order("conv norm act conv norm act +")
Order.ACT_ONLY_PREACTIVATION = Order("act conv norm act conv norm +")
Order.PREACTIVATION = Order("norm act conv norm act conv +")
Order.PRE_NORM = (Order("norm attention +"), Order("norm linear act linear +"))
Order.POST_NORM = (Order("attention + norm"), Order("linear act linear + norm"))
