"""The loss and all its gradients in one pass over chunks of classes."""

from .backends import AUTO, BACKENDS, Backend, check_backend, resolve_backend
from .op import loss_with_gradients
from .sgd import SGDStep

__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "SGDStep",
    "check_backend",
    "loss_with_gradients",
    "resolve_backend",
]
