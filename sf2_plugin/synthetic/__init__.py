"""Synthetic faces, drawn from numbers, and data sets of them laid out as real ones are."""

from .drawing import draw_face
from .face_folders import write_synthetic_faces

__all__ = ["draw_face", "write_synthetic_faces"]
