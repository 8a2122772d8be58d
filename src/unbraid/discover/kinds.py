"""The kinds of skip connections: how a skip carries its tensor, and how it meets its branches."""

from typing import Literal, TypeAlias, get_args

__all__ = ["ALL", "KINDS", "JoinKind", "Skip", "SkipKind"]

Skip: TypeAlias = Literal["identity", "projection", "gate", "mix", "none"]
# What can be looked for: a kind of skip in a sum, any skip in a concatenation, or the steps of recurrences.
SkipKind: TypeAlias = Literal["identity", "projection", "gate", "mix", "concatenation", "recurrent"]
KINDS: tuple[SkipKind, ...] = get_args(SkipKind)
ALL: tuple[SkipKind, ...] = KINDS[:-1]
JoinKind: TypeAlias = Literal["sum", "concatenation"]
