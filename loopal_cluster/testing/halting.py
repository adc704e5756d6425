"""Stop the tasks of one simulated process where they stand, as SIGSTOP and SIGKILL do.

Cancelling would run their ``finally`` blocks, and a process that is killed runs none. So between trio and
each task of a process stands a ``_Haltable``. While the process is halted, whatever should wake one of its
tasks is kept, and the task goes on waiting; when it is resumed, all of them wake.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import trio
from attrs import define, field

__all__ = ["Halter", "Switch", "this_process"]


@define(eq=False)
class Switch:
    """Halts and resumes all tasks of one process."""

    name: str
    halted: bool = False
    steps_limit: float = math.inf
    """So many steps its tasks may take: a loop without an end becomes an error."""
    steps: int = 0
    _kept: list[tuple[trio.lowlevel.Task, Any]] = field(factory=list)

    def halt(self) -> None:
        """Let none of the tasks take another step."""
        self.halted = True

    def resume(self) -> None:
        """Let them go on."""
        self.halted = False
        kept, self._kept = self._kept, []
        for task, value in kept:
            trio.lowlevel.reschedule(task, value)

    def keep(self, task: trio.lowlevel.Task, value: Any) -> Any:
        """Keep what a task was woken with; returns what makes trio let it wait."""
        self._kept.append((task, value))
        waiting = trio.lowlevel.wait_task_rescheduled(_never)  # noqa: ASYNC105  # awaited by hand
        trap = waiting.send(None)
        waiting.close()
        return trap


def _never(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


_switch: ContextVar[Switch | None] = ContextVar("switch", default=None)
"""Of the process that a task belongs to. Tasks inherit it from the one that starts them."""


def this_process() -> Switch | None:
    """The process that the current task belongs to, if it is one that can be halted."""
    return _switch.get()


class Halter(trio.abc.Instrument):
    """Puts a ``_Haltable`` before each task that belongs to a process.

    A task belongs to the process of the task in whose nursery it runs, whoever starts it there; else to the one of the
    context in which it is started.
    """

    @staticmethod
    def enter(switch: Switch) -> None:
        """Let what is started from here on, in the current context, belong to this process."""
        _switch.set(switch)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        parent = None if task.parent_nursery is None else task.parent_nursery.parent_task
        switch = (parent and parent.context.get(_switch)) or task.context.get(_switch)
        if switch is not None:
            task.context.run(_switch.set, switch)
            task.coro = _Haltable(task, switch)  # type: ignore[assignment]  # trio only sends and throws


class _Haltable:
    """A task's coroutine that does not go on while its process is halted."""

    def __init__(self, task: trio.lowlevel.Task, switch: Switch) -> None:
        self._task = task
        self._switch = switch
        self._coro: Coroutine[Any, Any, Any] = task.coro

    def send(self, value: Any) -> Any:
        switch = self._switch
        if switch.halted:
            return switch.keep(self._task, value)
        switch.steps += 1
        if switch.steps > switch.steps_limit:
            raise RuntimeError(f"{switch.name} has taken more than {switch.steps_limit} steps")
        return self._coro.send(value)

    def throw(self, error: BaseException) -> Any:
        return self._coro.throw(error)

    def __getattr__(self, name: str) -> Any:
        # trio and tracebacks look at the frame of a task, and whether it is running.
        return getattr(self._coro, name)
