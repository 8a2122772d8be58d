"""Every shape annotation of the library is checked at run time while the tests run."""

import jaxtyping
from jaxtyping import install_import_hook, jaxtyped


def _checked(*, typechecker):
    """What the hook puts on each function; those inside of others are made at each call, and checks with them.

    Making such a check takes longer than what it checks: two thirds of the time of a trace.
    """
    check = jaxtyped(typechecker=typechecker)
    return lambda made: made if "<locals>" in made.__qualname__ else check(made)


# The hook must be in place before the first import of unbraid: conftest is imported before any test module.
jaxtyping.jaxtyped = _checked
install_import_hook("unbraid", "beartype.beartype")
