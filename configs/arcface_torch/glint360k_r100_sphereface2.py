# Glint360K with IResNet-100, class centers sharded over 8 GPUs and a third of them sampled:
#   torchrun --nproc_per_node=8 -m sf2_plugin.integrations.arcface_torch \
#       train_v2.py configs/glint360k_r100_sphereface2.py
from configs.glint360k_r100 import config

config.loss = "sphereface2"
config.sphereface2 = dict(preset="opensphere-ms1m")
config.sample_rate = 0.3
config.save_all_states = True
