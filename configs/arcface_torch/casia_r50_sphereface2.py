# CASIA-WebFace (InsightFace's faces_webface_112x112) on one GPU: to be copied into the host's
# configs/ and run from the host's folder:
#   python -m sf2_plugin.integrations.arcface_torch train_v2.py configs/casia_r50_sphereface2.py
from configs.ms1mv3_r50 import config

config.loss = "sphereface2"
config.rec = "/train_tmp/faces_webface_112x112"
config.num_classes = 10572
config.num_image = 490623
config.num_epoch = 34
