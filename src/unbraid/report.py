"""What was the package `unbraid.report` is `unbraid.reports`; `unbraid.report` is the function."""

raise ImportError(
    "unbraid.report is a function; what its package held is in unbraid.reports now.", name="unbraid.report"
)
