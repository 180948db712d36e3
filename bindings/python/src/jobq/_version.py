"""The package's version, which is libjobq's."""

__version__ = "0.1.0"
