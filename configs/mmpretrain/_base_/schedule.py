# What a softmax margin loss is trained with; SphereFace2 takes it as it is.
max_epochs = 15

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=1, T_max=max_epochs - 1, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
# For `tools/train.py --auto-scale-lr`: faces of all GPUs at which the rate is right.
auto_scale_lr = dict(base_batch_size=64)
