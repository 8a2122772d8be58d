"""Take members out of the lists of a model, and modules without work out of the members that stay."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unbraid.pruning._model_calls import called
from unbraid.pruning._unused_modules import Path, Work, members, path_of
from unbraid.pruning._zero_module import Nothing


@dataclass(frozen=True)
class Cut:
    """What was taken from one list.

    Attributes:
        path: where the list is.
        names: its members' keys as they were.
        kept: the places, before the cut, of those that stay.
    """

    path: Path
    names: tuple[str, ...]
    kept: tuple[int, ...]

    @property
    def removed(self) -> tuple[str, ...]:
        """The paths of the members that went."""
        return tuple(".".join((*self.path, n)) for place, n in enumerate(self.names) if place not in self.kept)


@dataclass(frozen=True, eq=False)
class Substitute:
    """One module that is to take another's place.

    Attributes:
        name: the path of the module as it was.
        holder: the module that holds it, whatever becomes of the holder's path.
        old: the module.
        new: what takes its place.
    """

    name: str
    holder: nn.Module
    old: nn.Module
    new: nn.Module

    def apply(self) -> None:
        """Exchange the two, in place."""
        for key, module in list(self.holder.named_children()):
            if module is self.old:
                setattr(self.holder, key, self.new)


def idle_members(model: nn.Module, work: Work) -> list[tuple[Path, Path]]:
    """The members that can go whole, with their lists: those without work in which deleted additions are made.

    Where one lies in another, that of the innermost list of like members goes, a layer rather than a stage; where no
    list is of like members, the outermost.
    """
    idle = [pair for pair in members(model) if work.idle(pair[1]) and work.adds(pair[1])]
    like = [pair for pair in idle if alike(model.get_submodule(".".join(pair[0])))]
    chosen: list[tuple[Path, Path]] = []
    for pair in (*reversed(like), *idle):
        if not any(_within(pair[1], other) or _within(other, pair[1]) for _, other in chosen):
            chosen.append(pair)
    return chosen


def alike(holder: nn.Module) -> bool:
    """Whether the members of a list are of one class."""
    return len({type(member) for member in holder.children()}) == 1


def _within(path: Path, outer: Path) -> bool:
    return path[: len(outer)] == outer


def counters(model: nn.Module) -> dict[str, set[str]]:
    """For each list the names of the integers by which its members know their place."""
    paths = dict.fromkeys(path for path, _ in members(model))
    attributes = {name: index_attributes(model.get_submodule(name)) for name in map(".".join, paths)}
    return {path: names for path, names in attributes.items() if names}


def take_out(model: nn.Module, going: Sequence[tuple[Path, Path]]) -> list[Cut]:
    """Remove members from their lists, in place, and renumber what counts along with them."""
    cuts = []
    for path in dict.fromkeys(path for path, _ in going):
        holder = model.get_submodule(".".join(path))
        names = tuple(name for name, _ in holder.named_children())
        gone = {member[-1] for where, member in going if where == path}
        kept = tuple(place for place, name in enumerate(names) if name not in gone)
        counting = index_attributes(holder)
        _delete(holder, names, gone)
        for new, member in enumerate(holder.children()):
            for module in member.modules():
                for name in counting & vars(module).keys():
                    setattr(module, name, new)
        cuts.append(Cut(path, names, kept))
    return cuts


def index_attributes(holder: nn.Module) -> set[str]:
    """The names of integers that say, wherever they stand in a member, which place the member has in the list.

    At two places at least: a single 0 or 1 may count anything.
    """
    seen: dict[str, dict[int, set[int]]] = {}
    for place, member in enumerate(holder.children()):
        for module in member.modules():
            for name, value in vars(module).items():
                if type(value) is int:
                    seen.setdefault(name, {}).setdefault(place, set()).add(value)
    return {name for name, values in seen.items() if len(values) > 1 and _is_place(values)}


def _is_place(values: Mapping[int, set[int]]) -> bool:
    """Whether the only value at each place is the place itself."""
    return all(numbers == {place} for place, numbers in values.items())


def substitutes(
    model: nn.Module, work: Work, going: Sequence[Path], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Substitute]:
    """What to put in the place of every module without work that stays when some members go."""
    replacements = _shortened(model, work)
    names = [name for name, _ in model.named_modules() if work.idle(path_of(name)) and not work.adds(path_of(name))]
    calls = called(model, names, args, kwargs)
    done = [*(substitute.name for substitute in replacements), *(".".join(path) for path in going)]
    for name in names:
        if name in calls and not any(name == outer or name.startswith(f"{outer}.") for outer in done):
            replacements.append(_substitute(model, name, Nothing.like(*calls[name])))
            done.append(name)
    return replacements


def _holding(member: nn.Module, names: set[str]) -> set[str]:
    """The modules inside a member that have any of these attributes, by their names in it."""
    return {where for where, module in member.named_modules() if names & vars(module).keys()}


def renumber_rest(model: nn.Module, counting: Mapping[str, set[str]]) -> None:
    """Number anew, without gaps, what is left of the modules that counted along with the members of a list.

    Args:
        model: with some of these modules replaced.
        counting: for each list the names that counted; see `counters`.
    """
    for path, names in counting.items():
        children = list(model.get_submodule(path).children())
        homes = [_holding(member, names) for member in children]
        for where in set().union(*homes):
            holders = [member.get_submodule(where) for member, own in zip(children, homes, strict=True) if where in own]
            for new, module in enumerate(holders):
                for name in names & vars(module).keys():
                    setattr(module, name, new)


def _shortened(model: nn.Module, work: Work) -> list[Substitute]:
    """Where the skip of a member changes the shape, zeros would need a shape: leave its skip and trunk in a row."""
    replacements = []
    for _, path in members(model):
        if path in work.resized and not work.own(path):
            member = model.get_submodule(".".join(path))
            order = {name: work.first((*path, name)) for name, _ in member.named_children()}
            left = sorted((place, name) for name, place in order.items() if place is not None)
            row = nn.Sequential(OrderedDict((name, member.get_submodule(name)) for _, name in left))
            replacements.append(_substitute(model, ".".join(path), row.train(member.training)))
    return replacements


def _substitute(model: nn.Module, name: str, new: nn.Module) -> Substitute:
    return Substitute(name, model.get_submodule(name.rpartition(".")[0]), model.get_submodule(name), new)


def _delete(holder: nn.Module, names: tuple[str, ...], gone: set[str]) -> None:
    numbered = names == tuple(map(str, range(len(names))))
    stay = [member for name, member in holder.named_children() if name not in gone]
    labels = map(str, range(len(stay))) if numbered else [name for name in names if name not in gone]
    for name in names:
        delattr(holder, name)
    for label, member in zip(labels, stay, strict=True):
        holder.add_module(label, member)
