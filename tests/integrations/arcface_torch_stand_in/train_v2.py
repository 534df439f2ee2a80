import argparse
import logging
import os

import torch
from backbones import get_model
from dataset import get_dataloader
from losses import CombinedMarginLoss
from lr_scheduler import PolynomialLRWarmup
from partial_fc_v2 import PartialFC_V2
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.utils.data import DataLoader
from utils.utils_callbacks import CallBackLogging, CallBackVerification
from utils.utils_config import get_config
from utils.utils_distributed_sampler import setup_seed
from utils.utils_logging import AverageMeter, init_logging

try:
    rank = int(os.environ["RANK"])
    local_rank = int(os.environ["LOCAL_RANK"])
    world_size = int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("nccl")
except KeyError:
    rank, local_rank, world_size = 0, 0, 1
    distributed.init_process_group(
        backend="nccl",
        init_method="tcp://127.0.0.1:12584",
        rank=rank,
        world_size=world_size,
    )


def main(args):
    cfg = get_config(args.config)
    setup_seed(seed=cfg.seed, cuda_deterministic=False)
    torch.cuda.set_device(local_rank)
    os.makedirs(cfg.output, exist_ok=True)
    init_logging(rank, cfg.output)
    train_loader = get_dataloader(
        cfg.rec, local_rank, cfg.batch_size, cfg.dali, cfg.dali_aug, cfg.seed, cfg.num_workers
    )
    backbone = get_model(
        cfg.network, dropout=0.0, fp16=cfg.fp16, num_features=cfg.embedding_size
    ).cuda()
    backbone = torch.nn.parallel.DistributedDataParallel(
        module=backbone, broadcast_buffers=False, device_ids=[local_rank], bucket_cap_mb=16
    )
    backbone.register_comm_hook(None, fp16_compress_hook)
    backbone.train()

    margin_loss = CombinedMarginLoss(64, *cfg.margin_list, cfg.interclass_filtering_threshold)
    module_partial_fc = PartialFC_V2(
        margin_loss, cfg.embedding_size, cfg.num_classes, cfg.sample_rate, False
    )
    module_partial_fc.train().cuda()
    groups = [{"params": backbone.parameters()}, {"params": module_partial_fc.parameters()}]
    if cfg.optimizer == "sgd":
        opt = torch.optim.SGD(groups, lr=cfg.lr, momentum=0.9, weight_decay=cfg.weight_decay)
    else:
        opt = torch.optim.AdamW(groups, lr=cfg.lr, weight_decay=cfg.weight_decay)

    cfg.total_step = cfg.num_image // (cfg.batch_size * world_size) * cfg.num_epoch
    lr_scheduler = PolynomialLRWarmup(optimizer=opt, warmup_iters=0, total_iters=cfg.total_step)

    start_epoch = global_step = 0
    if cfg.resume:
        state = torch.load(os.path.join(cfg.output, f"checkpoint_gpu_{rank}.pt"))
        start_epoch, global_step = state["epoch"], state["global_step"]
        backbone.module.load_state_dict(state["state_dict_backbone"])
        module_partial_fc.load_state_dict(state["state_dict_softmax_fc"])
        opt.load_state_dict(state["state_optimizer"])
        lr_scheduler.load_state_dict(state["state_lr_scheduler"])

    callback_verification = CallBackVerification(
        val_targets=cfg.val_targets, rec_prefix=cfg.rec, summary_writer=None, wandb_logger=None
    )
    callback_logging = CallBackLogging(cfg.frequent, cfg.total_step, cfg.batch_size, global_step)
    loss_am = AverageMeter()
    amp = torch.cuda.amp.grad_scaler.GradScaler(growth_interval=100)

    for epoch in range(start_epoch, cfg.num_epoch):
        if isinstance(train_loader, DataLoader):
            train_loader.sampler.set_epoch(epoch)
        for img, local_labels in train_loader:
            global_step += 1
            loss = module_partial_fc(backbone(img), local_labels)
            if cfg.fp16:
                amp.scale(loss).backward()
            else:
                loss.backward()
            if global_step % cfg.gradient_acc == 0:
                if cfg.fp16:
                    amp.unscale_(opt)
                torch.nn.utils.clip_grad_norm_(backbone.parameters(), 5)
                amp.step(opt)
                amp.update()
                opt.zero_grad()
            lr_scheduler.step()
            loss_am.update(loss.item(), 1)
            callback_logging(
                global_step, loss_am, epoch, cfg.fp16, lr_scheduler.get_last_lr()[0], amp
            )
            if global_step % cfg.verbose == 0:
                callback_verification(global_step, backbone)
        if cfg.save_all_states:
            state = {
                "epoch": epoch + 1,
                "global_step": global_step,
                "state_dict_backbone": backbone.module.state_dict(),
                "state_dict_softmax_fc": module_partial_fc.state_dict(),
                "state_optimizer": opt.state_dict(),
                "state_lr_scheduler": lr_scheduler.state_dict(),
            }
            torch.save(state, os.path.join(cfg.output, f"checkpoint_gpu_{rank}.pt"))
        if rank == 0:
            torch.save(backbone.module.state_dict(), os.path.join(cfg.output, "model.pt"))
    logging.info("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=str)
    main(parser.parse_args())
