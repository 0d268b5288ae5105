"""Modbus on a serial line (RTU), RTU bytes over TCP, and Modbus TCP: reading registers only.

adu.py      frames: unit + PDU + CRC, or MBAP header + PDU
master.py   the asking side: requests, which frame answers which, registers out of a reply
device.py   the answering side, for simulated devices
profile.py  what a kind of device has in its registers, from data (config/devices)
sunspec.py  devices that tell themselves what they have
planner.py  points -> requests; line_cost.py what they cost, learned.py what a device refuses
decode.py   registers -> values, and back; counting.py steps and rollovers, ratio.py transformers
commissioning.py  what explains a wrong reply; skeleton.py a profile begun from a dump
explain.py  frames in words
"""
