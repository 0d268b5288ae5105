"""DL/T 645: the meter protocol of RS-485 lines in China. Both sides, no I/O.

`frame` bytes <-> frame, `catalogue` what a data identifier is, `items` payload <-> values,
`master` and `meter` the two sides of a read, `explain` a frame in words.
"""
