"""Whatever the network does to a stream, billing ends where the log says."""

from billing_builder import (
    EPOCH_A,
    EPOCH_B,
    EXPORT,
    IMPORT,
    MINUTE,
    T0,
    batch,
    exchange,
    freeze,
    read,
    withdrawn,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headend.billing.tables import metadata
from headend.domain.clock import iso
from headend.messages.records import ExpiredRecord

PROVENANCE = {"headend", "epoch", "seq", "evidence"}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "read", "withdraw", "freeze", "event", "expired"]),
        st.integers(0, 3),  # which key
        st.integers(0, 4),  # which value
    ),
    min_size=1,
    max_size=14,
)


def build_log(steps):
    """Records as a journal would number them: a revision for each new content of a key."""
    records = []
    content: dict[tuple, tuple[int, object]] = {}
    seq = 0
    for kind, key, value in steps:
        seq += 1
        at = T0 + key * MINUTE
        revision, before = content.get((kind == "freeze", key), (0, object()))
        if kind == "expired":
            records.append(ExpiredRecord(first_seq=seq, last_seq=seq + value))
            seq += value
        elif kind == "event":
            registers = {IMPORT: str(value)}
            records.append(exchange(seq, at_ms=at, old_final=registers, new_initial={IMPORT: "0"}))
        elif kind == "freeze":
            if before == value:
                revision -= 1  # the journal would not send it again; a new epoch may
            content[True, key] = (revision + 1, value)
            values = {IMPORT: f"{value}.5", EXPORT: None if value == 0 else f"{value}"}
            changes = {"meter": "M-F", "time": iso(at), "revision": revision + 1}
            records.append(freeze(seq, values, **changes))
        else:
            said = None if kind == "withdraw" else value
            if before == said:
                revision -= 1
            content[False, key] = (revision + 1, said)
            if said is None:
                records.append(withdrawn(seq, time_ms=at, revision=revision + 1))
            else:
                records.append(read(seq, f"{value}.25", time_ms=at, revision=revision + 1))
    return records


def cut(records, size, epoch):
    return [batch(records[i : i + size], epoch=epoch) for i in range(0, len(records), size)]


def state(inbox, *, whole: bool):
    """What billing holds; without where it came from unless `whole`."""
    names = [
        name
        for name in ("reading", "reading_history", "event", "conflict", "gap")
        if whole or name != "gap"
    ]
    found = {}
    for name in names:
        columns = [c.name for c in metadata.tables[name].columns]
        skip = set() if whole else PROVENANCE
        found[name] = sorted(
            str({k: v for k, v in zip(columns, row, strict=True) if k not in skip})
            for row in inbox.rows(name)
        )
    return found


def with_inbox(inbox, run):
    inbox.empty()
    return run(inbox)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.data())
def test_any_order_repetition_and_loss_ends_in_the_log_applied_once(one_inbox, steps, data):
    records = build_log(steps)
    clean = with_inbox(
        one_inbox,
        lambda inbox: (inbox.take(*cut(records, 5, EPOCH_A)), state(inbox, whole=True))[1],
    )

    def rough(inbox):
        size = st.integers(1, 4)
        deliveries = [m for _ in range(3) for m in cut(records, data.draw(size), EPOCH_A)]
        chosen = data.draw(st.lists(st.sampled_from(deliveries), max_size=20))
        receipted = 0
        for message in chosen:
            extra = data.draw(st.sampled_from([(), (b"junk",), (message[: len(message) // 2],)]))
            result = inbox.take(message, *extra)
            through = result.receipts.get(("he1", EPOCH_A), 0)
            assert through in (0, inbox.through())
            assert through >= receipted or through == 0
            receipted = max(receipted, through)
        inbox.take(*cut(records, data.draw(size), EPOCH_A))  # the head-end sends until receipted
        return state(inbox, whole=True)

    assert with_inbox(one_inbox, rough) == clean


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.data())
def test_a_new_epoch_that_sends_a_part_again_ends_in_the_log_applied_once(one_inbox, steps, data):
    records = [r for r in build_log(steps) if not isinstance(r, ExpiredRecord)]
    if not records:
        return
    records = build_log([step for step in steps if step[0] != "expired"])
    clean = with_inbox(
        one_inbox,
        lambda inbox: (inbox.take(*cut(records, 5, EPOCH_A)), state(inbox, whole=False))[1],
    )

    def rough(inbox):
        taken = data.draw(st.integers(0, len(records)))
        kept_from = data.draw(st.integers(0, taken))  # receipts that were lost
        if taken:
            inbox.take(*cut(records[:taken], data.draw(st.integers(1, 4)), EPOCH_A))
        rest = []
        for number, record in enumerate(records[kept_from:], start=1):
            record.seq = number
            rest.append(record)
        if rest:
            messages = cut(rest, data.draw(st.integers(1, 4)), EPOCH_B)
            for message in messages:
                inbox.take(*[message] * data.draw(st.integers(1, 2)))
        return state(inbox, whole=False)

    assert with_inbox(one_inbox, rough) == clean
