"""Records are values: compared, hashed and shown by their fields."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import pydoc
import threading
from typing import ClassVar

import attrs
import pytest
from attrs import field

import loopal_cluster
from loopal_cluster.messages import RegisterHub
from loopal_cluster.records import define, evolve, record


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
    assert Point(1, 2) != Place(1, 2)  # type: ignore[comparison-overlap]
    assert Point(1, 2) != (1, 2)  # type: ignore[comparison-overlap]


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


def classes_of_the_package() -> list[type]:
    """Every class that attrs finishes."""
    found = []
    for module in pkgutil.walk_packages(loopal_cluster.__path__, "loopal_cluster."):
        if not module.name.endswith("__main__"):
            classes = [
                cls for cls in vars(importlib.import_module(module.name)).values() if isinstance(cls, type)
            ]
            found += [
                cls for cls in classes if cls.__module__ == module.name and "__attrs_attrs__" in vars(cls)
            ]
    return found


def test_attrs_can_finish_every_class_of_the_package():
    """It does that when the first one is made, and nobody should be surprised then."""
    found = classes_of_the_package()

    assert len(found) > 250
    for cls in found:
        given = [field.alias for field in attrs.fields(cls) if field.init]
        assert given == list(inspect.signature(cls).parameters)


def test_a_record_is_finished_when_it_is_first_made_and_then_for_good():
    @record
    class Late:
        x: int
        y: list[int] = field(factory=list)
        z: ClassVar[int] = 3

    class Own(Late):
        pass

    assert Own(1) == Own(1, []) != Late(1)
    assert [each.name for each in attrs.fields(Late)] == ["x", "y"]
    assert Late.__init__ is Own.__init__
    assert Late(1).y is not Late(1).y


def test_a_class_of_its_own_may_make_the_first_record():
    @record
    class Late:
        x: str

    class Own(Late):
        def __init__(self, x: str) -> None:
            super().__init__(f"{x}!")

    assert Own("a").x == "a!"
    assert Own("a").x == "a!"


def test_a_record_is_described_before_the_first_is_made():
    @record
    class Late:
        x: int
        y: int = 0
        z: int = field(default=0, kw_only=True)

    assert "Late(x: 'int', y: 'int' = 0, *, z: 'int' = 0)" in pydoc.plain(pydoc.render_doc(Late))

    @record
    class Later:
        x: int
        y: int = field(default=0, kw_only=True)

    unpickled: object = object.__new__(Later)  # as ``pickle`` makes one
    object.__setattr__(unpickled, "x", 3)

    match unpickled:
        case Later(3):
            assert Later.__match_args__ == ("x",)
        case _:
            raise AssertionError("it is one")
    assert Later.__qualname__.endswith("<locals>.Later")


def test_threads_that_make_the_first_record_at_the_same_time_finish_its_class_once():
    finished = []
    second = threading.Event()

    def looked_at(cls: type, fields: list[attrs.Attribute[object]]) -> list[attrs.Attribute[object]]:
        finished.append(cls)
        if len(finished) > 1:
            second.set()
        second.wait(0.05)
        return fields

    @define(field_transformer=looked_at)
    class Late:
        x: int = field(converter=int)

    made: list[Late] = []
    threads = [threading.Thread(target=lambda: made.append(Late("1"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made == [Late(1), Late(1)]
    assert finished == [Late]


def test_a_record_of_a_record_has_the_fields_of_both():
    @record
    class Base:
        x: int

    @record
    class Derived(Base):
        y: int = 2

    assert Derived(1) == Derived(1, 2)
    assert repr(Derived(1)).endswith("Derived(x=1, y=2)")
    assert not hasattr(Derived(1), "__dict__")


def test_a_record_has_the_right_number_of_fields_or_is_refused():
    @record
    class Late:
        x: int

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Late()  # type: ignore[call-arg]


def test_state_is_equal_by_its_fields_or_by_identity_and_no_key():
    @define
    class State:
        x: int
        seen: bool = field(default=False, eq=False)

    @define(eq=False)
    class Owner:
        x: int

    state, owner = State(1), Owner(1)
    state.x = 2

    assert state == State(2, True) != State(1)
    assert owner == owner != Owner(1)
    assert owner in {owner}
    with pytest.raises(TypeError, match="unhashable"):
        hash(state)


def test_records_are_copied_and_matched():
    match copy.copy(Point(1, 2)):
        case Point(x, y):
            assert (x, y) == (1, 2)
        case other:
            raise AssertionError(other)
    assert pickle.loads(pickle.dumps(Point(1, 2))) == Point(1, 2)
