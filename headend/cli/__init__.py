"""The command line. Thin: each command parses its arguments, calls a room, prints."""
