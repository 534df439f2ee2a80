# MS1MV3 on 8 GPUs, from a checkout of MMPretrain:
#   bash tools/dist_train.sh ms1mv3_resnet50_sphereface2.py 8 --amp
_base_ = "casia_resnet50_sphereface2.py"

model = dict(head=dict(num_classes=93431, preset="opensphere-ms1m"))
auto_scale_lr = dict(base_batch_size=1024)
