"""Import this in a config of arcface_torch, and `config.loss` chooses the loss.

The host imports its config when its `main` has begun, before it looks up the names of its loss and
its callbacks, so that they can still be exchanged. By then everything else of the host has been
imported and has found its device: this is for a stack where the host runs as it is.
"""

from .patches import Run, apply_patches

apply_patches(Run())
