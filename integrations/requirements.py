"""One line for whoever imports an adapter without its framework."""

import importlib


def require(module: str, extra: str) -> None:
    """Import `module`, or say which extra brings it.

    Raises:
        ImportError: `module`, or something it needs, is missing.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} cannot be imported ({error}): pip install "sf2-plugin[{extra}]"'
        ) from error
