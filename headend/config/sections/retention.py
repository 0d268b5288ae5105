"""`retention`: how long the journal keeps what every consumer has receipted."""

from pydantic import Field

from headend.config.sections.base import Section, Whole


class RetentionSection(Section):
    """Days. Billing values are kept for thirteen months at least."""

    billing_days: Whole = Field(default=400, ge=396, le=36_600)
    telemetry_days: Whole = Field(default=30, ge=1, le=36_600)
