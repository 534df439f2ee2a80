# A config of arcface_torch with another loss: to be copied into the host's configs/ and run, from
# the host's folder, on as many GPUs as before:
#   torchrun --nproc_per_node=8 -m sf2_plugin.integrations.arcface_torch \
#       train_v2.py configs/ms1mv3_r50_sphereface2.py
from configs.ms1mv3_r50 import config

config.loss = "sphereface2"
# What refines it, with the defaults: see sf2_plugin.PartialFCSphereFace2.
config.sphereface2 = dict(preset="opensphere", margin_type="C", margin=0.4)
config.save_all_states = True
