from unbraid.form import ResidualForm
from unbraid.graph import Add


def place_of(form: ResidualForm, at: int | str) -> str:
    """The stream that `at` means: "source" is the first source; a block's index is its sum.

    At the sum, the gradient is that at the branch's output.
    """
    if isinstance(at, int):
        return add_of(form, at).output
    if at == "source":
        return form.sources[0]
    if at not in form.sources:
        raise ValueError(f'at: "source", a block\'s index, or one of the sources {list(form.sources)}; {at!r} came.')
    return at


def add_of(form: ResidualForm, block: int) -> Add:
    """The addition of a block."""
    for add in form.adds:
        if add.block == block:
            return add
    raise IndexError(f"at: there is no block {block}; blocks are numbered 0 to {len(form.blocks) - 1}.")
