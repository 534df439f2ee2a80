from torch.optim.lr_scheduler import _LRScheduler


class PolynomialLRWarmup(_LRScheduler):
    def __init__(
        self, optimizer, warmup_iters, total_iters=5, power=1.0, last_epoch=-1, verbose=False
    ):
        super().__init__(optimizer, last_epoch=last_epoch, verbose=verbose)
        self.total_iters = total_iters
        self.warmup_iters = warmup_iters
        self.power = power

    def get_lr(self):
        total = getattr(self, "total_iters", 1)
        left = max(1 - self.last_epoch / total, 0)
        return [lr * left for lr in self.base_lrs]
