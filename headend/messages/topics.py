"""The names of the feed's topics. One place writes them; nobody else joins strings."""

import re
from dataclasses import dataclass

from headend.domain.errors import FeedError
from headend.messages.records import NAME_PATTERN, cleaned

_NAME = re.compile(NAME_PATTERN)
_LEVEL = re.compile(r"^[^/+#\x00-\x1f\x7f]{1,128}\Z")
TOPIC_CHARS_MAX = 512


def check_name(text: str, what: str = "name") -> str:
    """`text` if it can be a head-end's or consumer's name on the feed; FeedError `bad_name`."""
    if not _NAME.match(text):
        raise FeedError(
            f"{what} {cleaned(text)!r}: 1 to 64 of a-z, 0-9, _ and - are allowed", code="bad_name"
        )
    return text


def check_filter(topic_filter: str) -> str:
    """`topic_filter` if it may be subscribed to; FeedError `bad_topic`.

    Shared subscriptions are refused: the broker would deal one stream out to several consumers,
    and "highest seq seen" would then acknowledge holes.
    """
    if topic_filter.startswith("$"):
        raise FeedError(
            f"topic {cleaned(topic_filter)!r}: shared and system topics are not for the feed; "
            "give each consumer a name of its own",
            code="bad_topic",
        )
    if not topic_filter or len(topic_filter) > TOPIC_CHARS_MAX or "\x00" in topic_filter:
        raise FeedError(f"topic {cleaned(topic_filter)!r} is empty or too long", code="bad_topic")
    return topic_filter


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one head-end."""

    headend: str

    def __post_init__(self) -> None:
        check_name(self.headend, "head-end name")

    @property
    def root(self) -> str:
        """What all of them begin with."""
        return f"meter/v1/{self.headend}"

    def feed(self, consumer: str) -> str:
        """Where a consumer's stream is published."""
        return f"{self.root}/feed/{check_name(consumer, 'consumer')}"

    def receipts(self, consumer: str) -> str:
        """Where a consumer sends receipts and resumes."""
        return f"{self.root}/receipts/{check_name(consumer, 'consumer')}"

    @property
    def all_receipts(self) -> str:
        """Receipts of every name, so that unknown ones are noticed."""
        return f"{self.root}/receipts/+"

    @property
    def status(self) -> str:
        """The retained status."""
        return f"{self.root}/status"

    @property
    def read_requests(self) -> str:
        """Where readings on demand are asked for."""
        return f"{self.root}/requests/read"

    @property
    def replies(self) -> str:
        """What every reply topic must begin with."""
        return f"{self.root}/replies/"

    def live(self, meter: str) -> str:
        """Last values of one meter for dashboards; a meter id that cannot be a level is refused."""
        if not _LEVEL.match(meter):
            raise FeedError(f"meter id {cleaned(meter)!r} cannot stand in a topic", code="bad_name")
        return f"{self.root}/live/{meter}"

    def consumer_of_receipt(self, topic: str) -> str | None:
        """The name a receipts topic ends in; None when it is no receipts topic."""
        prefix = f"{self.root}/receipts/"
        if not topic.startswith(prefix):
            return None
        name = topic[len(prefix) :]
        return name if name and "/" not in name else None

    def is_reply_topic(self, topic: str) -> bool:
        """Whether a reply may be published there: below `replies/`, no wildcards, bounded."""
        if not topic.startswith(self.replies) or len(topic) > TOPIC_CHARS_MAX:
            return False
        levels = topic[len(self.replies) :].split("/")
        return all(_LEVEL.match(level) for level in levels)
