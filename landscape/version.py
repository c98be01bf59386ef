"""The version, which the packaging reads too."""

__version__ = "0.1.0"
