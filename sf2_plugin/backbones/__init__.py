"""Backbones turn faces into embeddings: ONNX files, and what the hosts trained."""

from .digest import file_digest
from .embedding import embed_images
from .opening import open_backbone
from .protocol import Backbone, resized

__all__ = ["Backbone", "embed_images", "file_digest", "open_backbone", "resized"]
