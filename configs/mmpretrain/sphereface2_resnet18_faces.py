# SphereFace2 in MMPretrain: the head's type and `custom_imports` (in _base_/runtime.py).
_base_ = [
    "_base_/faces.py",
    "_base_/resnet18_64.py",
    "_base_/schedule.py",
    "_base_/runtime.py",
]

model = dict(head=dict(type="SphereFace2ClsHead", num_classes=1044, in_channels=256))
