"""Configuration: what can be set, what is set, and where that came from.

Start with `load`. Keys, defaults, bounds and descriptions stand in `oqtod.config.model` and nowhere else.
"""

from .expansion import runner_socket, workspace_root
from .loading import Loaded, load
from .model import Config, DevUser
from .problems import ConfigRefused, Problem

__all__ = [
    "Config",
    "ConfigRefused",
    "DevUser",
    "Loaded",
    "Problem",
    "load",
    "runner_socket",
    "workspace_root",
]
