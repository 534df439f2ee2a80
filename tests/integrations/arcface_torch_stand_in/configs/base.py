from easydict import EasyDict as edict

config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "toy"
config.resume = False
config.save_all_states = False
config.output = None
config.embedding_size = 512
config.sample_rate = 1
config.interclass_filtering_threshold = 0
config.fp16 = False
config.gradient_acc = 1
config.batch_size = 128
config.optimizer = "sgd"
config.lr = 0.1
config.weight_decay = 5e-4
config.verbose = 2000
config.frequent = 10
config.dali = False
config.dali_aug = False
config.seed = 2048
config.num_workers = 2
