"""Synthetic faces, drawn from numbers, and data sets of them laid out as real ones are."""

from .drawing import draw_face
from .face_folders import contact_sheet, write_synthetic_faces

__all__ = ["contact_sheet", "draw_face", "write_synthetic_faces"]
