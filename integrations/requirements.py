"""One line for whoever imports an adapter without its framework."""

import importlib
from importlib import metadata

#: A distribution that is there -> what completes it. The hosts of OpenMMLab have several names
#: that install over each other, and no advice may exchange the one that is there.
COMPLETED_BY = {
    "onedl-mmpretrain": 'pip install "onedl-mmpretrain[mminstall]"',
    "onedl-mmengine": "pip install onedl-mmengine",
    "mmcv": "reinstall the mmcv that is built for this torch, or exchange it for mmcv-lite",
}


def require(module: str, *extras: str) -> None:
    """Import `module`, or say what brings it: extras, or what completes the host that is there.

    The extra "hosts" is for an environment that has no host.

    Raises:
        ImportError: `module`, or something it needs, is missing.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        wanted = "pip install " + " ".join(f'"sf2-plugin[{extra}]"' for extra in extras)
        if "hosts" in extras:
            wanted = next((how for name, how in COMPLETED_BY.items() if version(name)), wanted)
        raise ImportError(f"{module} cannot be imported ({error}): {wanted}") from error


def version(distribution: str) -> str | None:
    """The version that is installed of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed(*distributions: str) -> str | None:
    """The first of several that install the same module: its name and version, or None."""
    return next((f"{name} {found}" for name in distributions if (found := version(name))), None)
