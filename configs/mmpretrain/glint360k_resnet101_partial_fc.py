# Glint360K on 8 GPUs, class centers sharded over them and a third of them sampled:
#   bash tools/dist_train.sh glint360k_resnet101_partial_fc.py 8 --amp
_base_ = "ms1mv3_resnet50_sphereface2.py"

model = dict(
    backbone=dict(depth=101),
    head=dict(num_classes=360232, partial_fc=True, sample_rate=0.3),
)
