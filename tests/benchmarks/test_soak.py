"""The soak sees memory that grows, and a MetaHub's does not."""

from __future__ import annotations

import pytest

from benchmarks.load import compiled
from benchmarks.soak import Soaked, described, main, soak


def soaked(megabytes_at: dict[int, float]) -> Soaked:
    return Soaked(1000, 10.0, [(float(second), megabytes) for second, megabytes in megabytes_at.items()])


def test_memory_that_grows_in_the_first_quarter_only_is_flat() -> None:
    grown = soaked({second: min(40.0 + second, 60.0) for second in range(101)})

    assert grown.flat
    assert "flat" in described(grown)


@pytest.mark.parametrize("leak", [0.02, 0.5])
def test_memory_that_grows_on_and_on_is_not_flat(leak: float) -> None:
    grown = soaked({second: 40.0 + leak * second + second % 3 / 10 for second in range(101)})

    assert not grown.flat
    assert grown.growth == pytest.approx(75 * leak, rel=0.05)
    assert described(grown).endswith("not flat")


def test_one_high_sample_is_no_growth() -> None:
    assert soaked({second: 50.0 if second == 60 else 40.0 for second in range(101)}).flat


def test_a_soak_that_is_over_at_once_is_no_soak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--routes", "10", "--interval", "10"]) == 1

    assert "error: 10 routes are too few" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("--routes", "x"), ("--routes", "-1"), ("--interval", "0"), ("--nothing",)]
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)

    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_hundred_thousand_routes_leave_the_memory_as_it_was() -> None:
    with compiled() as programs:
        result = soak(programs, 100_000, interval=0.2)

    assert result.routes >= 100_000
    assert result.flat, described(result)
