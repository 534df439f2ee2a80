# CASIA-WebFace on one GPU, from a checkout of MMPretrain:
#   python tools/train.py casia_resnet50_sphereface2.py --amp
_base_ = [
    "_base_/faces_112.py",
    "_base_/resnet50_112.py",
    "_base_/schedule.py",
    "_base_/runtime.py",
]

model = dict(head=dict(type="SphereFace2ClsHead", num_classes=10572, in_channels=512))
auto_scale_lr = dict(base_batch_size=128)
