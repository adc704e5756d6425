"""What a human is asked, and what the lines mean that are typed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from loopal_cluster.cli.asking import (
    ApprovalQueue,
    Asked,
    TerminalView,
    Turns,
    how_decided,
    read_answer,
    read_decision,
    read_questions,
)
from loopal_cluster.errors import NoOperator
from loopal_cluster.messages import Decided, Decision, Permission
from loopal_cluster.wire.contents import dumps


@pytest.mark.parametrize(
    ("line", "decision"),
    [
        ("y", Decision(allow=True)),
        (" YES ", Decision(allow=True)),
        ("n because I say so", Decision(allow=False, reason="because I say so")),
        ("", None),
        ("yn", None),
        ("ok", None),
    ],
)
def test_only_y_and_n_decide(line, decision):
    assert read_decision(line) == decision


@pytest.mark.parametrize(
    ("several", "line", "answer"),
    [
        (False, "1", "red"),
        (False, "3", None),
        (False, "0", None),
        (False, "1 2", None),
        (True, "1, 2", "red, green"),
        (True, "2 9", None),
        (False, "mauve", "mauve"),
        (False, "  ", None),
    ],
)
def test_an_answer_is_a_number_there_is_or_words(several, line, answer):
    assert read_answer(Asked("?", ("red", "green"), ("", ""), several), line) == answer


def test_a_question_without_options_takes_a_number_as_words():
    assert read_answer(Asked("How many?"), "42") == "42"


@pytest.mark.parametrize("odd", ["what?", {"a": 1}, [1], [{"question": "?", "options": ["x"]}], [None]])
def test_a_question_of_another_shape_is_shown_as_it_came(odd):
    (asked,) = read_questions(dumps(odd))

    assert asked.text
    assert asked.labels == ()


@pytest.mark.parametrize(
    ("decided", "words"),
    [
        (Decided("1", None, None), "is no longer asked"),
        (Decided("1", "policy", False), "was denied: nobody answered in time"),
        (Decided("1", "bob", True), "was allowed by bob first"),
        (Decided("1", "b\x1bb", None), "was answered by b\\x1bb first"),
    ],
)
def test_what_has_become_of_an_ask_is_told(decided, words):
    assert how_decided(decided) == words


async def test_askers_have_their_turns_and_only_what_has_one_is_acknowledged(nursery, autojump_clock):
    turns, shown, tasks = Turns(), list[str](), {}

    async def take(ask: Permission) -> None:
        with trio.CancelScope() as tasks[ask.ask_id]:
            async with turns.take(ask):
                await trio.sleep(1.0)

    for ask_id in ("a1", "a2", "a3", "b1", "a4", "c1"):
        nursery.start_soon(take, Permission("Bash", agent_name=ask_id[0], ask_id=ask_id))
        await wait_all_tasks_blocked()
    assert shown == []

    turns.open(lambda ask: shown.append(ask.ask_id))  # type: ignore[arg-type]
    await trio.sleep(0.5)
    tasks["a2"].cancel()  # somebody else has answered it
    await trio.sleep(10.0)

    assert shown == ["a1", "b1", "c1", "a3", "a4"]
    assert turns._waiting == {}


async def test_only_of_an_ask_that_was_shown_and_not_answered_here(nursery, capsys, autojump_clock):
    asker = ApprovalQueue(TerminalView())
    asker.turns.open(lambda ask: None)
    for number in ("1", "2"):
        nursery.start_soon(asker.on_permission, Permission("Bash", dumps({}), "call", ask_id=number))
    await wait_all_tasks_blocked()
    asker.offer("y")
    await wait_all_tasks_blocked()
    for number in ("1", "2", "3"):
        asker.on_decided(Decided(number, "bob", True))
    asker.offer("y")

    assert capsys.readouterr().err.count("(it was allowed by bob first)") == 1


async def test_each_line_of_a_script_answers_one_approval(nursery, autojump_clock):
    queue, answers = ApprovalQueue(TerminalView(), "ann"), dict[str, Decision]()
    queue.turns.open(lambda ask: None)

    async def ask(ask_id: str) -> None:
        permission = Permission("Bash", dumps({}), "call", agent_name="one", ask_id=ask_id)
        answers[ask_id] = await queue.on_permission(permission)

    async def script() -> None:
        for line in ("y", "what", "n because", "y"):
            await queue.give(line)

    nursery.start_soon(script)
    for ask_id in ("1", "2", "3"):
        nursery.start_soon(ask, ask_id)
        await wait_all_tasks_blocked()
    await queue.until_done()

    assert answers == {
        "1": Decision(allow=True, by="ann"),
        "2": Decision(allow=False, reason="because", by="ann"),
        "3": Decision(allow=True, by="ann"),
    }


async def test_a_line_typed_before_an_approval_is_shown_does_not_answer_it(nursery, autojump_clock):
    queue = ApprovalQueue(TerminalView())

    assert not queue.offer("y")

    queue.turns.open(lambda ask: None)
    nursery.start_soon(queue.on_permission, Permission("Bash", dumps({}), "call", ask_id="1"))
    await wait_all_tasks_blocked()

    assert queue.offer("what?")
    assert queue.offer("y")
    await queue.until_done()
    assert not queue.offer("y")


async def test_without_more_lines_nothing_is_decided_here(autojump_clock):
    queue = ApprovalQueue(TerminalView())
    queue.turns.open(lambda ask: None)
    queue.close()

    with pytest.raises(NoOperator):
        await queue.on_permission(Permission("Bash", dumps({}), "call", ask_id="1"))
    await queue.until_done()
