"""The sections of the configuration, one module each. Pure data with its own limits."""
