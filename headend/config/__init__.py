"""One YAML file (and the files it points at) into one checked, immutable configuration."""

from headend.config.errors import ConfigErrors
from headend.config.link_url import parse_link
from headend.config.loader import Config, load_config

__all__ = ["Config", "ConfigErrors", "load_config", "parse_link"]
