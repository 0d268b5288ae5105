"""A bus's section of the configuration as the settings of a bus."""

from headend.bus.settings import BusSettings
from headend.config.sections.buses import BusSection
from headend.domain.link import SerialSpec

# A connection on which so many requests in a row brought not one byte may be gone at the far end.
DROP_AFTER_SILENT = 8


def bus_settings(section: BusSection) -> BusSettings:
    """What the section says; a network connection that stays silent is made anew."""
    serial = isinstance(section.link_spec, SerialSpec)
    return BusSettings(
        gap_ms=section.gap_ms,
        reply_timeout_ms=section.timeout_ms,
        silence_after_timeout_ms=section.silence_after_timeout_ms,
        queue_max=section.queue_max,
        dead_after=section.dead_after,
        probe_max_s=section.probe_max_s,
        drop_after_silent=0 if serial else DROP_AFTER_SILENT,
    )
