"""A bus's section of the configuration as the settings of a bus."""

from dataclasses import replace

from headend.bus.settings import BusSettings
from headend.config.sections.buses import BusSection
from headend.domain.link import SerialSpec

# A connection on which so many requests in a row brought not one byte may be gone at the far end.
DROP_AFTER_SILENT = 8
# A gateway that comes back is found again within this and the time-out of connecting.
REOPEN_MAX_S = 4.0
# One that takes connections and says nothing is asked so often.
LINE_PROBE_S = 5.0
# Behind a gateway there are many units, and its own time-out makes each silent one cost seconds.
DEAD_SHARE = 0.02


def bus_settings(section: BusSection) -> BusSettings:
    """What the section says; a network connection that stays silent is made anew."""
    settings = BusSettings(
        gap_ms=section.gap_ms,
        reply_timeout_ms=section.timeout_ms,
        silence_after_timeout_ms=section.silence_after_timeout_ms,
        queue_max=section.queue_max,
        dead_after=section.dead_after,
        probe_max_s=section.probe_max_s,
    )
    if isinstance(section.link_spec, SerialSpec):
        return settings
    return replace(
        settings,
        dead_share=DEAD_SHARE,
        line_probe_s=LINE_PROBE_S,
        reopen_max_s=REOPEN_MAX_S,
        drop_after_silent=DROP_AFTER_SILENT,
    )
