"""What is remembered for a while has a bound, in entries and in bytes."""

from __future__ import annotations

from hosts.terminal.recent import Recent


def test_the_oldest_is_forgotten_first_and_what_is_noted_again_is_the_newest() -> None:
    recent = Recent[int](kept=2)
    for key in ("a", "b", "a", "c"):
        recent.note(key, 1)
    assert list(recent) == ["a", "c"]


def test_bytes_have_a_bound_together_and_the_newest_stays() -> None:
    recent = Recent[bytes](most_bytes=100)
    for number in range(5):
        recent.note(number, bytes(40))
    assert list(recent) == [3, 4]
    recent.note(5, bytes(200))
    assert list(recent) == [5]
