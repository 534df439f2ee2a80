# What `sf2 demo` trains on the faces it draws, for a first look: its network halves the image twice
# before the first of three stages, which costs less than a third of resnet18_64.py, what real faces
# want.
_base_ = ["sphereface2_resnet18_faces.py"]

max_epochs = 5

model = dict(
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=18,
        stem_channels=24,
        base_channels=24,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
    ),
    neck=dict(in_channels=96 * 4 * 4),
)
train_dataloader = dict(collate_fn=dict(type="default_collate"))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=1, T_max=max_epochs - 1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
