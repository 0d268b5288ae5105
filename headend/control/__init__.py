"""Everything that writes to a meter: off by default, with a reason, and with a record of it."""
