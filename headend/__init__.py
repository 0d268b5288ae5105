"""headend: a meter data head-end and concentrator gateway."""

__version__ = "0.1.0"
