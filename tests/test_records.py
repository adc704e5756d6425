"""Records are values: compared, hashed and shown by their fields."""

from __future__ import annotations

from attrs import field

from loopal_cluster.messages import RegisterHub
from loopal_cluster.records import evolve, record


@record
class Point:
    x: int
    y: int = 0


@record
class Place:
    x: int
    y: int = 0


@record
class Secret:
    name: str
    token: str = field(default="", repr=False)


@record
class Shown:
    x: int

    def __repr__(self) -> str:
        return "its own words"


def test_records_are_equal_if_their_classes_and_fields_are():
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Place(1, 2)
    assert Point(1, 2) != (1, 2)


def test_equal_records_are_one_key():
    assert {Point(1, 2): "a", Place(1, 2): "b"}[Point(1, 2)] == "a"
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_a_record_shows_its_fields_but_no_secrets():
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert repr(Secret("a", "t")) == "Secret(name='a')"
    assert "t0ken" not in repr(RegisterHub("a", "t0ken"))
    assert repr(Shown(1)) == "its own words"


def test_a_record_that_differs_in_a_field_is_another():
    point = Point(1, 2)

    assert evolve(point, y=3) == Point(1, 3)
    assert point == Point(1, 2)
