import torch


class Toy(torch.nn.Module):
    def __init__(self, fp16, num_features):
        super().__init__()
        self.fp16 = fp16
        self.shrink = torch.nn.AvgPool2d(14)
        self.features = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(3 * 64, num_features),
            torch.nn.BatchNorm1d(num_features),
        )

    def forward(self, x):
        with torch.cuda.amp.autocast(self.fp16):
            x = self.shrink(x)
        return self.features(x.float())


def get_model(name, **kwargs):
    return Toy(kwargs.get("fp16", False), kwargs.get("num_features", 512))
