"""Modbus on a serial line (RTU), RTU bytes over TCP, and Modbus TCP: reading registers only.

adu.py      frames: unit + PDU + CRC, or MBAP header + PDU
master.py   the asking side: requests, which frame answers which, registers out of a reply
device.py   the answering side, for simulated devices
profile.py  what a kind of device has in its registers, from data (config/devices)
planner.py  points -> requests
decode.py   registers -> values, and back
explain.py  frames in words
"""
