import torch
from torch import distributed
from torch.utils.data import DistributedSampler as _DistributedSampler


def setup_seed(seed, cuda_deterministic=True):
    torch.manual_seed(seed)


def get_dist_info():
    return distributed.get_rank(), distributed.get_world_size()


def sync_random_seed(seed=None, device="cuda"):
    number = torch.tensor(seed, dtype=torch.int32, device=device)
    distributed.broadcast(number, src=0)
    return number.item()


class DistributedSampler(_DistributedSampler):
    def __init__(self, dataset, num_replicas=None, rank=None, shuffle=True, seed=0):
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle)
        self.seed = sync_random_seed(seed)
