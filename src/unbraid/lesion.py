"""What was the package `unbraid.lesion` is `unbraid.lesions`; `unbraid.lesion` is the function."""

raise ImportError(
    "unbraid.lesion is a function; what its package held is in unbraid.lesions now.", name="unbraid.lesion"
)
