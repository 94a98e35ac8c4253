"""The version of edge_runtime, which is part of the key of everything that it builds."""

__version__ = "0.1.0"
