"""The drills: what each does to a simulated street, and what it must come to."""

NAMES = (
    "broker-lost",
    "influx-lost",
    "disk-full",
    "clock-wrong",
    "mass-silence",
    "adapter-pulled",
)
