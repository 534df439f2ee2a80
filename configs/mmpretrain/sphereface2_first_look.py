# What `sf2 demo` trains on the faces it draws, for a first look: its network halves the image twice
# before the first stage, which costs a third of resnet18_64.py. Real faces want that one.
_base_ = ["sphereface2_resnet18_faces.py"]

max_epochs = 6

model = dict(
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2, 1),
    )
)
train_dataloader = dict(batch_size=32)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=1, T_max=max_epochs - 1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
