"""The daemon's local socket: the one way in for commands that change something."""

from headend.api.server import ApiError, ApiServer, Command

__all__ = ["ApiError", "ApiServer", "Command"]
