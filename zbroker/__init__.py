"""zbroker: the broker, its journal and its commands."""

__version__ = "0.1.0"
