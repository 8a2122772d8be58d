"""What was the package `unbraid.unravel` is `unbraid.terms`; `unbraid.unravel` is the function."""

raise ImportError(
    "unbraid.unravel is a function; what its package held is in unbraid.terms now.", name="unbraid.unravel"
)
