import importlib
import os.path as osp


def get_config(config_file):
    name = osp.splitext(osp.basename(config_file))[0]
    cfg = importlib.import_module("configs.base").config
    cfg.update(importlib.import_module(f"configs.{name}").config)
    if cfg.output is None:
        cfg.output = osp.join("work_dirs", name)
    return cfg
