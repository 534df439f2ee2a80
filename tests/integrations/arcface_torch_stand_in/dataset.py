import os

import mxnet as mx
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from utils.utils_distributed_sampler import DistributedSampler, get_dist_info


def get_dataloader(
    root_dir, local_rank, batch_size, dali=False, dali_aug=False, seed=2048, num_workers=2
):
    if os.path.exists(os.path.join(root_dir, "train.rec")):
        train_set = MXFaceDataset(root_dir=root_dir, local_rank=local_rank)
    else:
        steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        steps.append(transforms.Normalize([0.5] * 3, [0.5] * 3))
        train_set = ImageFolder(root_dir, transforms.Compose(steps))
    rank, world_size = get_dist_info()
    sampler = DistributedSampler(
        train_set, num_replicas=world_size, rank=rank, shuffle=True, seed=seed
    )
    return DataLoaderX(
        local_rank=local_rank,
        dataset=train_set,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=True,
        drop_last=True,
    )


class DataLoaderX(DataLoader):
    def __init__(self, local_rank, **kwargs):
        super().__init__(**kwargs)
        self.stream = torch.cuda.Stream(local_rank)


class MXFaceDataset(Dataset):
    def __init__(self, root_dir, local_rank):
        super().__init__()
        self.imgrec = mx.recordio.MXIndexedRecordIO(
            os.path.join(root_dir, "train.idx"), os.path.join(root_dir, "train.rec"), "r"
        )
        header, _ = mx.recordio.unpack(self.imgrec.read_idx(0))
        self.end = int(header.label[0])

    def __len__(self):
        return self.end - 1

    def __getitem__(self, index):
        header, image = mx.recordio.unpack(self.imgrec.read_idx(index + 1))
        pixels = torch.from_numpy(mx.image.imdecode(image).asnumpy())
        label = header.label if isinstance(header.label, float) else header.label[0]
        return pixels.permute(2, 0, 1) / 127.5 - 1, torch.tensor(int(label))
