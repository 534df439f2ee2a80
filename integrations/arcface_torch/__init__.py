"""SphereFace2 for InsightFace's arcface_torch, unmodified: `config.loss = "sphereface2"`.

From the host's own folder, alone or under ``torchrun ... -m``::

    python -m sf2_plugin.integrations.arcface_torch train_v2.py configs/NAME

or, where the host runs as it is, with its usual command and one more line in the config::

    import sf2_plugin.integrations.arcface_torch.enable

Both take their changes from one table, `patches.PATCHES`.
"""
