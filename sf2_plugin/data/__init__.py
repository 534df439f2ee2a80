"""Faces in and out: pair sets, image folders, InsightFace records.

NumPy alone, and Pillow (`pip install "sf2-plugin[data]"`) where pixels are asked for.
"""

from .bins import read_pair_bin, write_pair_bin
from .folders import FaceFolder, read_face_folder
from .images import decode_image, encode_jpeg
from .pair_sets import PairSet, read_pair_list, read_pairs
from .records import FaceRecords, IndexedRecords, unpack_record, write_records

__all__ = [
    "FaceFolder",
    "FaceRecords",
    "IndexedRecords",
    "PairSet",
    "decode_image",
    "encode_jpeg",
    "read_face_folder",
    "read_pair_bin",
    "read_pair_list",
    "read_pairs",
    "unpack_record",
    "write_pair_bin",
    "write_records",
]
