# ArcFace, for comparison: this file and sphereface2_resnet18_faces.py differ in the head's type.
_base_ = [
    "_base_/faces.py",
    "_base_/resnet18_64.py",
    "_base_/schedule.py",
    "_base_/runtime.py",
]

model = dict(head=dict(type="ArcFaceClsHead", num_classes=1044, in_channels=256))
