"""The stream as the sum of the input's term and one term per block (Equation 11.5)."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._renamed import gone
from unbraid.discover import Block, BlockLike, index_of
from unbraid.form import ResidualForm
from unbraid.graph import Add, subgraph
from unbraid.results import Brief, Result, Target, check_sum, sum_error, tolerance
from unbraid.results.rows import Row, as_rows, numbered
from unbraid.terms._attribution import Attribution, attributed, kept_apart
from unbraid.terms._frozen_head import frozen_head
from unbraid.terms._lens import Lens, lens
from unbraid.terms._push_terms import FrozenTrunk
from unbraid.terms._route import CONSTANTS, INPUT, By, Writer, in_order, names_of, taken_by
from unbraid.walk import run


@dataclass(frozen=True, eq=False, repr=False)
class Term(Brief):
    """One term of Equation 11.5: f_k of all terms before it.

    Attributes:
        name: "input", the block's name, its branch's where each branch is a term, or "constants".
        value: what it adds to the stream, [*stream].
        block: the block's index; None for the input and the constants.
        branch: which of the block's branches, from 0, where each is a term of its own; otherwise None.
        substituted: whether the term is a smaller network of x alone: so it is where every later trunk operation and
            skip is the identity. Elsewhere a call runs the blocks before it and freezes the later gates at the given x.
    """

    name: str
    value: Inexact[Tensor, "*stream"]
    block: int | None
    branch: int | None
    substituted: bool
    _trunk: FrozenTrunk = field(repr=False)
    _stream: str = field(repr=False)
    _writer: Writer = field(repr=False)

    @outside_modes
    def unravel(self) -> "Terms":
        """The input of this block's branch as a sum of terms: the last network transforms an ensemble again.

        Raises:
            ValueError: the input and the constants have no branch.
        """
        if self.block is None:
            raise ValueError(
                f"unravel: the term {self.name!r} has no branch; terms 1 to K, those of the blocks, have one."
            )
        return _terms(self._trunk, _add(self._trunk, self.block).fork)

    @outside_modes
    def __call__(self, *args: Any, **kwargs: Any) -> Inexact[Tensor, "*stream"]:  # the model's own signature
        """The smaller network of this term at another input."""
        form = self._trunk.form
        inputs = form.signature.bind(args, kwargs)
        if self.substituted and self.block is not None:
            add = _add(self._trunk, self.block)
            chosen = add.branches if self.branch is None else add.branches[self.branch : self.branch + 1]
            branches = tuple(stream for stream in chosen if stream is not None)
            with torch.no_grad():
                values = run(subgraph(form.graph, branches), form.state, inputs)
            return sum((values[stream] for stream in branches[1:]), start=values[branches[0]])
        terms = _terms(FrozenTrunk.of(form, inputs, self._trunk.by_branch), self._stream)
        by_writer = dict(zip(terms._writers, terms.values, strict=True))
        return by_writer.get(self._writer, torch.zeros_like(terms.stream))


@dataclass(frozen=True, eq=False, repr=False)
class Terms(Result):
    """The stream as a sum: the input's term, one term per block, and the trunk's own constants (Equation 11.5).

    Attributes:
        names: "input", the blocks' names, and "constants" where the trunk adds any (a norm's bias, say).
        values: the terms, one after the other.
        stream: what they sum to, as the model computes it.
        error: ‖Σ terms − stream‖∞ relative to the largest of the terms and of the stream.
    """

    names: tuple[str, ...]
    values: Inexact[Tensor, "terms *stream"]
    stream: Inexact[Tensor, "*stream"]
    error: float
    _writers: tuple[Writer, ...] = field(repr=False)
    _trunk: FrozenTrunk = field(repr=False)
    _of: str = field(repr=False)

    columns = (
        ("", "{number:d}"),
        ("term", "{term}"),
        ("rms", "{rms:.4g}"),
        ("rms / rms of the stream", "{share:.3f}"),
    )

    @property
    def caption(self) -> str:
        """How exact the sum is."""
        return f"the terms sum to the stream to {self.error:.1e}"

    def total(self) -> Inexact[Tensor, "*stream"]:
        """The sum of the terms."""
        return self.values.sum(0)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: BlockLike) -> Term:
        """One term, by number or name: terms[0] is the input, terms[k] is f_k of Equation 11.5, terms[−1] the last.

        A block, or a block's name, is its term, unless each of its branches is one.

        Raises:
            IndexError: there is no such term.
        """
        k = self._term_index(which)
        writer = self._writers[k]
        block, branch = _block_and_branch(writer)
        substituted = block is not None and _free_way(self._trunk, block, self._of)
        return Term(self.names[k], self.values[k], block, branch, substituted, self._trunk, self._of, writer)

    def _term_index(self, which: BlockLike) -> int:
        if isinstance(which, str) and which in self.names:
            return self.names.index(which)
        if isinstance(which, str | Block):
            block = index_of(self._trunk.form.blocks, which, "terms")
            own = [k for k, writer in enumerate(self._writers) if _block_and_branch(writer)[0] == block]
            if len(own) != 1:
                names = [self.names[k] for k in own]
                raise IndexError(
                    f"terms: block {block} ({self._trunk.form.all_blocks[block].name!r}) has {len(own)} terms here"
                    f"{f': {names}' if own else ''}; the terms are {list(self.names)}."
                )
            return own[0]
        k = operator.index(which)
        if not -len(self) <= k < len(self):
            raise IndexError(f"terms: there is no term {k}; terms are numbered 0 to {len(self) - 1}.")
        return k

    @outside_modes
    def attribute(self, target: Target, *, output: str | int | None = None, along: int | None = None) -> Attribution:
        """Split a scalar of the output over the terms, the head frozen at this input; see `Attribution`.

        Args:
            target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
                classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a
                list of these, one for each example; or a function of what the model returns that gives a tensor
                [batch].
            output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
            along: a dimension of the stream along which the contributions are kept apart as well, in `parts`: the
                positions, or the streams of hyper-connections.

        Raises:
            TargetError: the target does not fit what the model returns; it says which form would.
            ValueError: the stream has no such dimension, or it counts the examples.
            InexactError: the contributions do not sum to the target, or an operator of the head has no rule.
        """
        form = self._trunk.form.explaining(output)
        head = frozen_head(form, self._trunk.given, self._of, self.stream, target)
        values = head.examples.dot(self._of, self.values, head.gradients[self._of])
        attribution = attributed(self.names, values, head, head.examples)
        return attribution if along is None else kept_apart(attribution, self._of, self.values, along, head)

    @outside_modes
    def lens(self, scale: str = "recomputed") -> Lens:
        """The head applied to every partial sum of the terms (the logit lens); see `Lens`.

        Args:
            scale: "recomputed", where the head's norms measure each partial sum; or "frozen", where they keep the scale
                of the whole stream.

        Raises:
            ValueError: the scale is neither.
        """
        return lens(self._trunk, self._of, self.names, self.values, scale)

    @property
    def norms(self) -> Float[Tensor, " terms"]:
        """The root mean square of each term over all its elements."""
        return self.values.flatten(1).abs().square().mean(1).sqrt()

    def rows(self) -> list[Row]:
        """One row per term, with its root mean square."""
        blocks = [_block_and_branch(writer)[0] for writer in self._writers]
        return as_rows({"term": self.names, "rms": self.norms, "block": blocks})

    def _table_rows(self) -> list[Row]:
        shares = self.norms / self.stream.abs().square().mean().sqrt()
        rows = numbered(self.rows())
        for row, share in zip(rows, shares.tolist(), strict=True):
            row["share"] = share
        return rows

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The root mean square of each term."""
        from unbraid.draw import terms

        return terms(self.names, self.norms.tolist(), ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Names, sizes and error as plain values."""
        return {"names": list(self.names), "rms": self.norms.tolist(), "error": self.error}


@gone(split='give by="head"')
@outside_modes
def unravel(form: ResidualForm, args: Any, kwargs: Mapping[str, Any] | None = None, *, by: By = "block") -> Terms:
    """Take apart the stream that reaches the output: y = x + f_1[x] + f_2[x + f_1[x]] + ... (Equation 11.5).

    Where the trunk does more than add, S_k and P_k are frozen at this input, so that every term travels linearly to the
    end: a gate keeps its state, a norm its scale. What they add by themselves is the term "constants".

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        by: "block" for one term per block; "branch" for one per branch; or "head" for one per branch and, where the
            graph shows attention heads, one per head.

    Returns:
        The terms, whose sum is the stream to the measured `error`.

    Raises:
        ValueError: by is none of these, or no branch shows attention heads.
        InexactError: the sum departs from the stream by more than rounding, or the trunk has an operator with no rule.
    """
    exact = taken_by(form, by, "unravel").exact
    return _terms(FrozenTrunk.of(exact, exact.inputs(args, kwargs), by != "block"), exact.end)


def _terms(trunk: FrozenTrunk, stream: str) -> Terms:
    terms = trunk.terms(stream)
    blocks = in_order({writer for writer in terms if not isinstance(writer, str)})
    whole = trunk.values[stream]
    first = terms.get(INPUT, torch.zeros_like(whole))
    constants = [CONSTANTS] if CONSTANTS in terms else []
    writers: tuple[Writer, ...] = (INPUT, *blocks, *constants)
    values = torch.stack([first, *(terms[writer] for writer in writers[1:])])
    error = sum_error(values, whole)
    check_sum(
        error,
        "unravel: the terms must sum to the stream",
        precision=trunk.form.precision,
        graph=trunk.form.graph,
        where=stream,
        first=lambda: _first_departure(trunk, stream),
    )
    return Terms(names_of(trunk.form, writers), values, whole, error, writers, trunk, stream)


def _block_and_branch(writer: Writer) -> tuple[int | None, int | None]:
    """Block and branch, from 0, as far as a term has them."""
    if isinstance(writer, tuple):
        return writer
    return (None, None) if isinstance(writer, str) else (writer, None)


def _first_departure(trunk: FrozenTrunk, stream: str) -> str:
    """The first block whose sum is not that of its terms; the stream where all of them are."""
    bound = tolerance("sum", trunk.form.precision)
    for add in trunk.form.adds:
        known = add.block < len(trunk.form.blocks) and add.output in trunk.values
        terms = list(trunk.terms(add.output).values()) if known else []
        if terms and not sum_error(torch.stack(terms), trunk.values[add.output]) <= bound:
            return f"block {add.block} ({trunk.form.blocks[add.block].name!r})"
    return stream


def _add(trunk: FrozenTrunk, block: int) -> Add:
    return next(add for add in trunk.form.adds if add.block == block)


def _free_way(trunk: FrozenTrunk, block: int, stream: str) -> bool:
    """Whether nothing but additions lies between a block and the stream: every later S and P is the identity."""
    reached = _add(trunk, block).output
    for add in trunk.form.adds:
        if add.block < len(trunk.form.blocks) and add.skip == reached and add.along is None:
            reached = add.output
    return reached == stream and _add(trunk, block).along is None
