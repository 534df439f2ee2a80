"""`sf2` as installed, and `python -m sf2_plugin`: the command line as a process of its own."""

import sys
from typing import NoReturn

from .interruption import end_when_told


def script() -> NoReturn:
    """Run `sys.argv`; a signal to end is obeyed at once, in the middle of imports too."""
    end_when_told()
    from .cli import main

    sys.exit(main())


if __name__ == "__main__":
    script()
