# Faces cut to 112x112: ROOT/train/PERSON/*.jpg to train on, ROOT/val_pairs.txt or a .bin to verify.
data_root = "demo_output/faces"

data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[128.0, 128.0, 128.0], to_rgb=True)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64)),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64)),
    dict(type="PackInputs"),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    # A batch of one face has no batch statistics.
    drop_last=True,
    dataset=dict(
        type="CustomDataset", data_root=data_root, data_prefix="train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="FacePairDataset",
        data_root=data_root,
        ann_file="val_pairs.txt",
        name="val",
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type="FaceVerification")
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
