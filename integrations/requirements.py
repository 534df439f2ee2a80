"""One line for whoever imports an adapter without its framework."""

import importlib


def require(module: str, *extras: str) -> None:
    """Import `module`, or say which extras bring it.

    The extra "hosts" is for an environment that has no host: their packages exist under several
    names that install over each other (mmcv and mmcv-lite, mmpretrain and onedl-mmpretrain).

    Raises:
        ImportError: `module`, or something it needs, is missing.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        wanted = " ".join(f'"sf2-plugin[{extra}]"' for extra in extras)
        raise ImportError(f"{module} cannot be imported ({error}): pip install {wanted}") from error
