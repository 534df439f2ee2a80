# MS1MV3 with IResNet-100 on one machine of 8 GPUs, by the numbers the authors train MS1M with; run
# as ms1mv3_r50_sphereface2.py:
#   torchrun --nproc_per_node=8 -m sf2_plugin.integrations.arcface_torch \
#       train_v2.py configs/ms1mv3_r100_sphereface2.py
from configs.ms1mv3_r100 import config

config.loss = "sphereface2"
config.sphereface2 = dict(preset="opensphere-ms1m")
config.save_all_states = True
