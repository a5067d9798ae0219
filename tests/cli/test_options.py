"""Durations, and who looks again when."""

import argparse

import pytest
from mirrorstream_cli.main import build_parser
from mirrorstream_cli.options import duration
from mirrorstream_cli.polling import Clock, poll_until


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h", 3600), ("2m30s", 150), ("0", 0), ("45", 45), ("1.5s", 1.5), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """As kubectl takes them, and bare seconds."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "5m1h", "-5m", "1e3", "5 m", "five", "\u0665s", "\u0665"])
def test_what_is_no_duration(text: str) -> None:
    """It is quoted."""
    with pytest.raises(argparse.ArgumentTypeError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "-n", ""],
        ["missing", "-n", "a/b"],
        ["retry", "-n", "A", "app"],
        ["explain", "-n", "a.b", "x/y"],
        ["status", "-n", "a" * 64],
        ["status", "-n", "a", "-A"],
        ["status", "-o", "imageset"],
        ["status", "--wait", "x"],
        ["retry"],
        ["check", "x.yaml"],
        ["check", "--wait", "5m"],
        ["suggest", "-o", "imageset"],
        ["completion", "x"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and the plugin's own name in the usage."""
    with pytest.raises(SystemExit) as ended:
        build_parser("kubectl mirrorstream").parse_args(arguments)
    assert ended.value.code == 2
    assert "usage: kubectl mirrorstream" in capsys.readouterr().err


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self, look_takes: float = 0.0) -> None:
        self.at, self.look_takes, self.slept = 100.0, look_takes, list[float]()

    def clock(self) -> Clock:
        """The clock."""
        return Clock(lambda: self.at, self.sleep, lambda: self.at)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.at += seconds

    def look(self) -> float:
        """A look, which takes its time; its answer is the time that has passed."""
        self.at += self.look_takes
        return self.at - 100


@pytest.mark.parametrize(
    ("takes", "seconds", "needed", "found", "slept"),
    [
        (0, 10, 0, 0, []),
        (0, 10, 3, 3, [1, 1, 1]),
        (0, 2.5, 99, 2.5, [1, 1, 0.5]),
        (0, 0, 99, 0, []),
        (2, 25, 99, 27, [8, 8, 3]),
        (30, 10, 99, 30, []),
    ],
    ids=["at-once", "after-a-while", "time-over", "no-waiting", "a-slow-server-is-asked-less-often", "one-look-is-always-taken"],
)
def test_looking_again(takes: float, seconds: float, needed: float, found: float, slept: list[float]) -> None:
    """Until it is so, or the time is over; the last look is at its end."""
    time = Time(takes)
    answer = poll_until(time.look, lambda passed: passed >= needed, seconds=seconds, every=1, clock=time.clock())
    assert (answer.found, time.slept) == (pytest.approx(found), pytest.approx(slept))
