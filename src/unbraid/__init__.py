"""Build residual networks, find the residual connections in any PyTorch model, and take the model apart, exactly."""

from unbraid import nn

__all__ = ["nn"]
