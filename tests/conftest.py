"""Every shape annotation of the library is checked at run time while the tests run."""

from jaxtyping import install_import_hook

# The hook must be in place before the first import of unbraid: conftest is imported before any test module.
install_import_hook("unbraid", "beartype.beartype")
