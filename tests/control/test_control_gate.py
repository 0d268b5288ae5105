"""Nothing is written to a meter without leave, a reason and a record."""

import json
import os
from pathlib import Path

import pytest

from headend.config.secret_files import FileFault
from headend.control.audit import Audit, AuditError
from headend.control.gate import PASSWORD_REFUSED, Gate
from headend.control.password import read_password
from headend.domain.errors import PolicyError

AT = "2026-03-01T10:00:00+00:00"


def begin(audit: Audit, subject: str = "M-1"):
    return audit.begin(
        at=AT, action="clock_set", subject=subject, by="li", reason="drift", details={"x": 1}
    )


def test_control_is_off_unless_the_configuration_says_otherwise():
    with pytest.raises(PolicyError, match="control is off"):
        Gate(enabled=False, refusals_max=3, lines=()).admit(by="li", reason="clock is wrong")


@pytest.mark.parametrize(
    ("by", "reason"), [("", "clock is wrong"), ("li", ""), ("li", "  x "), ("x" * 101, "why not")]
)
def test_who_and_why_are_asked(by, reason):
    with pytest.raises(PolicyError):
        Gate(enabled=True, refusals_max=3, lines=()).admit(by=by, reason=reason)


def test_a_job_ends_after_so_many_refusals_over_all_meters():
    job = Gate(enabled=True, refusals_max=2, lines=()).job()
    job.refused()
    job.go_on()
    job.refused()
    with pytest.raises(PolicyError, match="2 meters have refused"):
        job.go_on()


def test_a_refused_password_is_not_sent_to_that_meter_again_even_by_a_later_process(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl")
    intent = begin(audit)
    audit.end(intent, at=AT, outcome=PASSWORD_REFUSED, details={"password_of": "a-1"})
    gate = Gate(enabled=True, refusals_max=3, lines=Audit(tmp_path / "audit.jsonl").lines())
    with pytest.raises(PolicyError, match="refused this password"):
        gate.admit_password("M-1", "a-1")
    gate.admit_password("M-1", "a-2")
    gate.admit_password("M-2", "a-1")


def test_what_is_to_be_done_is_on_the_disk_before_anything_is_sent(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd)))
    path = tmp_path / "audit.jsonl"
    intent = begin(Audit(path))
    assert synced
    assert json.loads(path.read_text()) == {
        "schema": "control_audit/1", "number": 1, "at": AT, "what": "intent",
        "action": "clock_set", "subject": "M-1", "by": "li", "reason": "drift", "x": 1,
    }  # fmt: skip
    assert intent.number == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_numbers_go_on_after_a_restart_and_a_line_that_was_cut_short_is_dropped(tmp_path):
    path = tmp_path / "audit.jsonl"
    begin(Audit(path))
    with path.open("ab") as file:
        file.write(b'{"schema": "control_audit/1", "number": 7, "at": "20')
    audit = Audit(path)
    assert begin(audit).number == 2
    assert [line["number"] for line in audit.lines()] == [1, 2]


def test_a_strange_line_stops_everything_rather_than_being_passed_over(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text('{"schema": "else"}\n')
    with pytest.raises(AuditError, match=r"audit\.jsonl:1 "):
        Audit(path)


def test_a_record_that_cannot_be_written_is_an_error(tmp_path):
    audit = Audit(tmp_path / "no" / "audit.jsonl")
    with pytest.raises(AuditError, match="cannot be written"):
        begin(audit)


def password_file(folder: Path, text: str) -> Path:
    path = folder / "password"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_password_is_read_with_its_level_and_never_shown(tmp_path):
    found = read_password(password_file(tmp_path, "04 123456\n"))
    assert (found.level, found.digits) == (4, "123456")
    assert "123456" not in repr(found)
    assert "123456" not in found.of


@pytest.mark.parametrize("text", ["123456", "10 123456", "04 12345", "04 12345x", "x 123456"])
def test_a_file_without_a_password_says_what_was_expected(tmp_path, text):
    with pytest.raises(FileFault, match="level and six digits") as caught:
        read_password(password_file(tmp_path, text))
    assert "123456" not in str(caught.value)


def test_a_changed_file_is_another_password(tmp_path):
    path = password_file(tmp_path, "04 123456")
    before = read_password(path).of
    assert read_password(path).of == before
    path.unlink()
    assert read_password(password_file(tmp_path, "04 654321")).of != before
