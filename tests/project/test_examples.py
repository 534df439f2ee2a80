"""Examples in docstrings run as they stand."""

import doctest
import importlib

import pytest
import torch

from .test_layers import MODULES

HOSTS = {
    "integrations.mmengine": "mmengine",
    "integrations.mmpretrain": "mmpretrain",
    "integrations.pytorch_metric_learning": "pytorch_metric_learning",
}

#: What a reader's own file has before the example.
BEFORE = {"torch": torch, "test_pipeline": [dict(type="PackInputs")]}


def modules_with_examples():
    return [module for module, path in MODULES.items() if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_run(name):
    for prefix, host in HOSTS.items():
        if name.startswith(prefix):
            pytest.importorskip(host)
    module = importlib.import_module(f"sf2_plugin.{name}")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(module, extraglobs=BEFORE):
        report = []
        runner.run(test, out=report.append)
        assert not report, "".join(report)
    assert runner.tries
