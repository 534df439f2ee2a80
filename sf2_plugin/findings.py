"""What an examination of the environment finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its name, whether it is good, and what was found."""

    name: str
    good: bool
    found: str
