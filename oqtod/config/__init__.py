"""Configuration: what can be set, what is set, and where that came from.

Start with `load`. Keys, defaults, bounds and descriptions stand in `oqtod.config.model` and nowhere else.
"""

from .expansion import HOST_SOCKET, admin_socket, runner_socket, workspace_root
from .loading import Loaded, load
from .model import Config, DevUser, Limits
from .problems import ConfigRefused, Problem

__all__ = [
    "HOST_SOCKET",
    "Config",
    "ConfigRefused",
    "DevUser",
    "Limits",
    "Loaded",
    "Problem",
    "admin_socket",
    "load",
    "runner_socket",
    "workspace_root",
]
