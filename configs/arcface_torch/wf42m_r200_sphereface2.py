# WebFace42M with IResNet-200 on 4 machines of 8 GPUs; on each of them, NODE being 0 to 3:
#   torchrun --nnodes=4 --nproc_per_node=8 --node_rank=NODE \
#       --master_addr=FIRST_MACHINE --master_port=29500 \
#       -m sf2_plugin.integrations.arcface_torch train_v2.py configs/wf42m_r200_sphereface2.py
from configs.wf42m_pfc03_32gpu_r200 import config

config.loss = "sphereface2"
config.sphereface2 = dict(preset="opensphere-ms1m")
config.save_all_states = True
