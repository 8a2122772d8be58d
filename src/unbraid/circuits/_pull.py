"""What a change of each writer does to a target by way of each reader: edges as inner products, read from behind.

The gradient at what a reader computes goes back through the reader alone to what it reads, and from there back along
the trunk to every writer:

    g_j  = J_j^T ∂target/∂(what j computes)                     at what j reads
    g_ij = (trunk from i to j)^T g_j                            at what i writes
    edge i → j = ⟨change of what i writes, g_ij⟩

By the chain rule Σ_j g_ij is the whole gradient at what i writes, whatever the trunk does: this is measured. A trunk of
additions alone is linear, and there a reader's edges sum to ⟨change of all that it reads, g_j⟩: this is measured, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from torch import Tensor

from unbraid.discover.wiring import Reader, Wiring, part_of
from unbraid.form import TARGET, Linearised
from unbraid.graph import makes
from unbraid.results import Examples
from unbraid.walk import Cotangents, walk


@dataclass(frozen=True, eq=False)
class Pulled:
    """What reaches the writers from one reader.

    Attributes:
        at_entries: the gradient at what it reads, through it alone.
        at_writers: the gradient at what writers write, by way of it.
    """

    at_entries: Mapping[str, Tensor]
    at_writers: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Pull:
    """The target's gradient by reader.

    Attributes:
        linear: a run of the form that ends in the target.
        wiring: its writers, readers and trunk, the target being the last that is read.
        edges: (writer, reader) of the form, whether or not the target depends on them.
    """

    linear: Linearised
    wiring: Wiring
    edges: frozenset[tuple[str, str]]

    @staticmethod
    def of(linear: Linearised, wiring: Wiring) -> "Pull":
        """The gradients of a run, by the readers of its form, of which the last ends in the target."""
        return Pull(linear, replace(wiring, graph=linear.graph), wiring.edges)

    def readers(self) -> Iterator[tuple[Reader, Pulled]]:
        """Each reader with what reaches the writers from it."""
        graph = self.linear.graph
        through = Cotangents(graph, self.linear.tape)
        for reader in self.wiring.readers:
            seeds = {TARGET: self.linear.seed} if reader.block is None else self._seeds(reader)
            inside = replace(part_of(graph, reader.steps, (*reader.streams, *reader.entries)), sources=())
            entries = walk(inside, through, seeds, reader.entries)
            yield reader, Pulled(entries, self.along_trunk(entries, self.wiring.written))

    def _seeds(self, reader: Reader) -> dict[str, Tensor]:
        return {stream: self.whole[stream] for stream in reader.streams if stream in self.whole}

    def along_trunk(self, entries: Mapping[str, Tensor], at: Iterable[str]) -> dict[str, Tensor]:
        """Gradients at what is read, back along the trunk alone to some streams."""
        return walk(self.wiring.trunk, Cotangents(self.linear.graph, self.linear.tape), entries, at)

    @cached_property
    def whole(self) -> Mapping[str, Tensor]:
        """The gradient at what each writer writes, by all readers together; nothing passes what the input writes."""
        graph = self.linear.graph
        ends = replace(graph, sources=tuple(dict.fromkeys((*graph.sources, *self.wiring.inputs))))
        return walk(ends, Cotangents(graph, self.linear.tape), {TARGET: self.linear.seed}, self.wiring.written)

    @cached_property
    def examples(self) -> Examples:
        """The examples, told apart at what is written and read."""
        read = chain.from_iterable(reader.entries for reader in self.wiring.readers)
        made = chain.from_iterable(map(makes, self.wiring.trunk.steps))
        return self.linear.examples_of(self.linear.gradients_at({*self.wiring.written, *read, *made} - {TARGET}))
