# A folder of face images (PERSON/*.jpg, and NAME.bin pair sets beside the people) on a laptop: to
# be copied into the host's configs/ and run from the host's folder:
#   python -m sf2_plugin.integrations.arcface_torch --device cpu \
#       train_v2.py configs/folder_mbf_sphereface2.py
from easydict import EasyDict as edict

config = edict()
config.loss = "sphereface2"
config.network = "mbf"
config.embedding_size = 512
config.output = None
config.save_all_states = True

# Of your own folder: its path, its people and its images.
config.rec = "data/faces"
config.num_classes = 1000
config.num_image = 5000
config.val_targets = ["val"]

config.batch_size = 32
config.num_epoch = 10
config.warmup_epoch = 0
config.lr = 0.05
config.frequent = 10
config.verbose = 150
