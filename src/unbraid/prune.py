"""What was the package `unbraid.prune` is `unbraid.pruning`; `unbraid.prune` is the function."""

raise ImportError("unbraid.prune is a function; what its package held is in unbraid.pruning now.", name="unbraid.prune")
