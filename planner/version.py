"""The version of the distribution, where it is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("shardwise")
except PackageNotFoundError:
    __version__ = "0+unknown"
