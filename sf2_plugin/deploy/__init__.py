"""Faces in a product: what `sf2 export` wrote, read with NumPy and onnxruntime, without torch."""

from .model import Candidate, FaceModel, load

__all__ = ["Candidate", "FaceModel", "load"]
