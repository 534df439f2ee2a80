# ResNet-50 on 112x112 faces; the whole 4x4 map is kept for the embedding, because where a feature
# lies tells faces apart.
embedding_size = 512

model = dict(
    type="ImageClassifier",
    backbone=dict(type="ResNet", depth=50, num_stages=4, out_indices=(3,)),
    neck=dict(type="LinearNeck", in_channels=2048 * 4 * 4, out_channels=embedding_size),
)
