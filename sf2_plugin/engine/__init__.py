"""The loss and all its gradients in one pass over chunks of classes."""

from .backends import BACKENDS, resolve_backend
from .op import loss_with_gradients
from .sgd import SGDStep

__all__ = ["BACKENDS", "SGDStep", "loss_with_gradients", "resolve_backend"]
