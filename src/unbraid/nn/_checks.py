"""Options that cannot go together, refused with what to write instead."""

from unbraid.nn._choice import choose
from unbraid.nn._init import INITS
from unbraid.nn._layers import ACTIVATIONS, NORMS
from unbraid.nn._recipe import Recipe
from unbraid.nn._scales import StochasticDepth
from unbraid.nn._shortcuts import SHORTCUTS

__all__ = ["checked"]

# φ(u) − φ(−u) is linear in u for these alone.
LOOK_LINEAR = ("relu", "leaky_relu", "gelu", "silu")


def checked(recipe: Recipe) -> Recipe:
    """The recipe itself, unless it names what does not exist, or what cannot go together.

    Raises:
        ValueError: with the first fault.
    """
    choose("activation", recipe.activation, ACTIVATIONS)
    choose("shortcut", recipe.shortcut, {name: SHORTCUTS[name] for name in recipe.family.shortcuts})
    choose("init", recipe.init, INITS)
    if recipe.norm is not None:
        choose("norm", recipe.norm, {name: NORMS[name] for name in recipe.family.norms})
    StochasticDepth(recipe.stochastic_depth)  # refuses what is no probability
    _check_tokens(recipe)
    _check_start(recipe)
    if "attention" in recipe.family.tokens:
        _check_attentive(recipe)
    if recipe.scale in ("fixup", "nf"):
        _check_norm_free(recipe)
    if recipe.init == "looks_linear":
        _check_looks_linear(recipe)
    return recipe


def _check_tokens(recipe: Recipe) -> None:
    known = (*recipe.family.tokens, "norm", "act")
    refused = next((token for token in recipe.tokens if token not in known), None)
    if refused:
        words = str(recipe.order).split()
        remedy = " ".join(word if word in (*known, "+") else recipe.family.tokens[0] for word in words)
        raise ValueError(
            f'{recipe.constructor}: cannot build the token "{refused}" of order "{recipe.order}"\n'
            f'  It takes {", ".join(known)} and +. Write order="{remedy}".'
        )


def _check_start(recipe: Recipe) -> None:
    # ReLU's derivative at 0 is 0: a branch that ends in it and starts at 0 gets no gradient, ever.
    if recipe.scale in ("zero", "fixup") and recipe.activation == "relu" and recipe.order.before[-1] == "act":
        raise ValueError(
            f'{recipe.constructor}: with scale="{recipe.scale}" the order "{recipe.order}" never trains: each branch '
            'starts at 0, where the derivative of relu is 0\n  Use scale="learned" or another activation.'
        )


def _check_attentive(recipe: Recipe) -> None:
    """What is derived for layers one after the other says nothing of attention."""
    if recipe.scale in ("fixup", "nf"):
        _refuse(recipe, f'scale="{recipe.scale}" is not derived for attention', 'scale="learned"')
    if recipe.init == "looks_linear":
        _refuse(recipe, 'init="looks_linear" cannot make attention linear', 'init="orthogonal"')


def _check_norm_free(recipe: Recipe) -> None:
    """Fixup and NF-ResNets replace norms; β follows the variance through skips that keep it."""
    keep = ("identity", "pad", "projection") if recipe.scale == "fixup" else ("identity", "projection")
    if recipe.used_norm is not None:
        _refuse(recipe, f'scale="{recipe.scale}" replaces norms, but norm="{recipe.norm}"', "norm=None")
    if recipe.shortcut not in keep:
        why = f'scale="{recipe.scale}" counts on the skip, which shortcut="{recipe.shortcut}" changes'
        _refuse(recipe, why, f'shortcut="{next(name for name in recipe.family.shortcuts if name in keep)}"')
    if recipe.scale == "nf" and recipe.order.after:
        why = f'scale="nf" predicts the variance of a sum that the order "{recipe.order}" changes'
        _refuse(recipe, why, f'order="{" ".join(recipe.order.before)} +"')


def _check_looks_linear(recipe: Recipe) -> None:
    """Each layer of a branch must read φ of the pairs u, −u, and the sum must stay pairs."""
    choose('init="looks_linear": activation', recipe.activation, {name: name for name in LOOK_LINEAR})
    weight = recipe.family.tokens[0]
    steps = [token for token in recipe.tokens if token != "norm"]
    turns = ["act" if place % 2 == 0 else weight for place in range(len(steps))]
    if recipe.order.after or steps != turns or steps[-1] == "act":
        why = f'init="looks_linear" needs an act before each layer and none elsewhere, but order="{recipe.order}"'
        _refuse(recipe, why, f'order="act {weight} +"')
    if recipe.shortcut.endswith("gate"):
        _refuse(recipe, f'init="looks_linear" needs a linear skip, but shortcut="{recipe.shortcut}"', "another")


def _refuse(recipe: Recipe, why: str, remedy: str) -> None:
    raise ValueError(f"{recipe.constructor}: {why}\n  Use {remedy}.")
