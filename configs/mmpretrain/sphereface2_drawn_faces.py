# `sf2 demo` on drawn faces: smaller ones and fewer epochs, for a first look in two minutes.
_base_ = ["sphereface2_resnet18_faces.py"]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(48, 48)),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(48, 48)),
    dict(type="PackInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    neck=dict(in_channels=128 * 3 * 3),
    head=dict(num_classes=300),
)

max_epochs = 6
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=1, T_max=max_epochs - 1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
