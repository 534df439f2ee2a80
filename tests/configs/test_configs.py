"""Every shipped config builds its model; as many class centers as it names take no memory."""

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from sf2_plugin import PartialFCSphereFace2, Recipe

CONFIGS = Path(__file__).parents[2] / "configs"

#: What this project's files take from the host's own where no checkout of it is at hand.
HOSTS_OWN = dict(embedding_size=512, num_classes=93431, sample_rate=1.0)


def shipped(host):
    paths = sorted((CONFIGS / host).glob("*.py"))
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@shipped("mmpretrain")
def test_mmpretrain(path):
    pytest.importorskip("mmpretrain")
    import sf2_plugin.integrations.mmpretrain  # noqa: F401
    from mmengine.config import Config
    from mmpretrain.registry import MODELS

    config = Config.fromfile(path)
    assert config.custom_imports == dict(imports=["sf2_plugin.integrations.mmpretrain"])
    head = config.model.pop("head")
    model = MODELS.build({**config.model, "data_preprocessor": config.data_preprocessor}).eval()
    size = config.test_pipeline[1].get("scale", (112, 112))
    with torch.no_grad():
        (features,) = model.extract_feat(torch.zeros(1, 3, *size))
    assert features.shape == (1, head.in_channels)
    if head.type == "SphereFace2ClsHead":
        with torch.device("meta"):
            loss = MODELS.build(head).loss_module
        assert loss.recipe == Recipe.from_preset(head.get("preset", "opensphere"))
        assert loss.weight.shape == (head.num_classes, head.in_channels)


@pytest.fixture
def host_configs(monkeypatch):
    """The host's `configs` package: a checkout's where there is one, else one that has any name."""
    host = os.environ.get("ARCFACE_TORCH")
    if host:
        monkeypatch.syspath_prepend(host)
        yield
    else:

        class Any(ModuleType):
            __path__ = ()

            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return SimpleNamespace(**HOSTS_OWN)

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "configs":
                    from importlib.machinery import ModuleSpec

                    return ModuleSpec(name, self, is_package="." not in name)
                return None

            def create_module(self, spec):
                return Any(spec.name)

            def exec_module(self, module):
                pass

        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        del sys.modules[name]


@shipped("arcface_torch")
@pytest.mark.usefixtures("host_configs")
def test_arcface_torch(path):
    pytest.importorskip("easydict")
    config = runpy.run_path(str(path))["config"]
    assert config.loss == "sphereface2"
    with torch.device("meta"):
        options = getattr(config, "sphereface2", {})
        head = PartialFCSphereFace2(config.num_classes, config.embedding_size, **options)
    assert head.weight.shape == (config.num_classes, 512)
