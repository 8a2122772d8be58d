"""The words of the table of operators: what a row may say of one, its traits and how it is frozen.

    kind        what it does to elements: moves, picks, pointwise, norm, convolution, mixes
    affine      in which groups of operands, all of a group at once and the others held
    freeze      by which rule of `freeze` it becomes affine at a given input; a name, for the rules lie above this room

`graph/_operator_table.py` has the rows, `graph/_questions.py` the questions that are asked of a node's row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias, final

# Affine in some of the arguments, the others held. Each group names arguments by their places: all of one group may
# carry data at once. A list of tensors is one argument. Products are affine in one factor alone: two attention scores
# are two branches.
Groups: TypeAlias = tuple[tuple[int, ...], ...]

FIRST: Groups = ((0,),)
SECOND: Groups = ((1,),)
BOTH: Groups = ((0, 1),)
EITHER: Groups = ((0,), (1,))  # a product of two factors
BASE_AND_EITHER: Groups = ((0, 1), (0, 2))  # the same, added to a base


class Kind(Enum):
    """What an operator does to the elements of its operands."""

    MOVES = auto()  # each output element is one input element: nothing is computed, nothing lost (shape-only)
    PICKS = auto()  # movements that lose, repeat or join elements: affine, and yet nothing is mixed
    POINTWISE = auto()  # element by element
    NORM = auto()  # it measures a length or a deviation, and where it is affine once that is held, only scales
    CONVOLUTION = auto()
    MIXES = auto()  # an element from several; also what is known of an operator without a row


class Frozen(Enum):
    """How an operator is made affine at a given input; `freeze` has one rule for each."""

    LINEAR = auto()  # it is so already, in all operands that carry data, taken together
    CONJUGATE = auto()  # linear over real numbers alone: no gate stands for it
    DETACH = auto()  # gradients end there, values do not
    HELD = auto()  # constant: attention keeps its pattern, a norm its length
    PRODUCT = auto()
    DIVISION = auto()
    LERP = auto()
    QUOTIENT_ADDED = auto()
    FIRST_ALONE = auto()
    SECOND_ALONE = auto()
    DROPOUT = auto()
    LAYER_NORM = auto()
    RMS_NORM = auto()
    GROUP_NORM = auto()
    NATIVE_GROUP_NORM = auto()
    INSTANCE_NORM = auto()
    BATCH_NORM = auto()
    LEGIT_BATCH_NORM = auto()
    ATTENTION = auto()
    LOG_SOFTMAX = auto()
    COSINE = auto()
    GLU = auto()
    LARGER = auto()
    LARGEST_ALONG = auto()
    SORTED = auto()
    POOLED = auto()
    POOLED_AT_RANDOM = auto()
    SCATTERED = auto()
    MEAN_BESIDE = auto()
    BOTH_ENDS = auto()
    COPIED = auto()
    RESULT = auto()

    @property
    def writes_all(self) -> bool:
        """Whether the rule of an operator with several results writes each of them, not the first alone."""
        return self in (Frozen.MEAN_BESIDE, Frozen.BOTH_ENDS)


class Holds(Enum):
    """What the data decide and must be held for an operator to be affine in them."""

    SCALE = auto()  # a norm's; batch norm holds none: in eval mode its scale is a constant
    CHOICE = auto()  # a maximum's


class Random(Enum):
    """What an operator draws."""

    STANDARD = auto()  # normal, mean 0
    UNIT = auto()  # uniform from 0 to 1
    NORMAL = auto()  # its mean is the first argument
    NORMAL_OVER = auto()  # it draws over its first argument, and the mean is the second, by default 0
    UNIFORM_OVER = auto()  # it draws over its first argument, between the second and the third, by default 0 and 1
    OTHER = auto()  # masks, permutations, numbers of another law
    SWITCHED = auto()  # nothing but where an argument says so: dropout


class Attention(Enum):
    """What an operator is in attention."""

    PATTERN = auto()  # a soft-max
    PRODUCT = auto()  # of the pattern and the values
    WHOLE = auto()  # all of it


class Memory(Enum):
    """What an operator has to do with where numbers lie in memory."""

    READS_PLACES = auto()  # it reads numbers by their place, or says where they lie
    IMAGES = auto()  # a convolution of images: faster where the channels of a position of its weight lie side by side


@final
@dataclass(frozen=True)
class Operator:
    """A row of the table: all that is known of an operator.

    Attributes:
        kind: what it does to elements.
        affine: the groups of operands in which it is affine.
        freeze: how it is frozen; None where no rule makes it affine, or where it is an activation.
        holds: what must be held for it to be affine; None where it is so as it stands.
        shifts: the place of the argument that it adds to what it carries; None where it adds none.
        listed: the place of a list of factors, which are places of their own, counted from there.
        copies: whether it hands on its operand as it is, in another type or layout at most.
        takes: whether it takes elements of its first operand by their places: no zeros, none that their values choose.
        reader: of an operator that writes a part of its first operand, the one that reads it by the same arguments.
        looks_up: whether each element is looked up at a place of its own: a table of relative positions for attention
            scores, not a stream.
        sizes_of: the place of the argument of which it reads sizes or type alone.
        sized: whether it asks all its numbers for sizes.
        scale: whether what it makes is the scale of a norm: held even beside a factor that passed a non-linearity.
        random: what it draws; None where it draws nothing.
        channels: the dimension that it takes for channels, 1 or the last; None where it takes none.
        attention: what it is in attention.
        memory: what it has to do with where numbers lie.
    """

    kind: Kind
    affine: Groups = ()
    freeze: Frozen | None = None
    holds: Holds | None = None
    shifts: int | None = None
    listed: int | None = None
    copies: bool = False
    takes: bool = False
    reader: Callable[..., Any] | None = None
    looks_up: bool = False
    sizes_of: int | None = None
    sized: bool = False
    scale: bool = False
    random: Random | None = None
    channels: int | None = None
    attention: Attention | None = None
    memory: Memory | None = None

    @property
    def mixing(self) -> bool:
        """Whether it makes an element from several."""
        return self.kind not in (Kind.MOVES, Kind.PICKS, Kind.POINTWISE)

    @property
    def factors(self) -> int:
        """The place of the first factor of a product."""
        return 1 if self.affine == BASE_AND_EITHER else self.listed or 0

    def affine_in(self, places: Sequence[int] | set[int]) -> bool:
        """Whether it is affine in the arguments at these places, taken together."""
        return any(set(places) <= set(group) for group in self.affine)


# What is known of an operator without a row: nothing. It carries no operand, no rule makes it affine, and each element
# that it makes may depend on all that it reads.
OPAQUE = Operator(Kind.MIXES)
