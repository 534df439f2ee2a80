# WebFace42M on 4 machines of 8 GPUs; on each of them, NODE being 0 to 3:
#   NNODES=4 NODE_RANK=NODE MASTER_ADDR=FIRST_MACHINE \
#       bash tools/dist_train.sh wf42m_resnet152_partial_fc.py 8 --amp
_base_ = "glint360k_resnet101_partial_fc.py"

model = dict(backbone=dict(depth=152), head=dict(num_classes=2059906))
auto_scale_lr = dict(base_batch_size=4096)
