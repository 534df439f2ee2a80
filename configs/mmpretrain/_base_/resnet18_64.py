# A small residual network for 64x64 faces: the first stage halves the image, as InsightFace's do,
# and the whole 4x4 map is kept for the embedding, because where a feature lies tells faces apart.
embedding_size = 256

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet_CIFAR",
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(2, 2, 2, 2),
        num_stages=4,
        out_indices=(3,),
    ),
    neck=dict(type="LinearNeck", in_channels=128 * 4 * 4, out_channels=embedding_size),
)
