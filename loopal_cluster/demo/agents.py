"""The agents of the demo.

``lead`` runs on one hub and spawns the others on other hubs. ``surveyor`` and ``checker`` count the same
files independently, tell each other what they found, and agree or not.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import trio

from loopal_cluster.agents.context import AgentContext

__all__ = ["checker", "lead", "surveyor"]

FILE_LIMIT = 5000
"""Files looked at; a demo should end while somebody watches."""


async def lead(ctx: AgentContext, prompt: str) -> str:
    """Spread the work over the other hubs, gather what they found, and write it down if allowed."""
    root, report = prompt.splitlines()
    hubs = await ctx.list_hubs()
    where = {kind: hub.name for hub in hubs if hub.name != ctx.hub for kind in hub.agent_types}
    ctx.stream(f"{len(hubs)} hubs: {', '.join(hub.name for hub in hubs)}")

    names = "\n".join(str(path) for path in await trio.to_thread.run_sync(list, files_under(root)))
    checking = await ctx.spawn("checker", root, hub=where["checker"], name="checker")
    surveying = await ctx.spawn(
        "surveyor", f"{root}\n{checking.address}", hub=where["surveyor"], name="surveyor"
    )
    counting = await ctx.spawn("wc", names, hub=where["wc"], name="wc")

    survey, check = await surveying.result(), await checking.result()
    total = (await counting.result()).strip()
    findings = f"{survey}\n{check}\nwc, a program that has never heard of us: {total}"

    decision = await ctx.ask_permission("WriteReport", {"path": report})
    if not decision.allow:
        return f"{findings}\nThe report was not written: {decision.reason or 'denied'} ({decision.by})."
    await trio.Path(report).write_text(findings + "\n", encoding="utf-8")
    return f"{findings}\nThe report was written, as {decision.by} allowed."


async def surveyor(ctx: AgentContext, prompt: str) -> str:
    """Count files, lines, functions and classes; compare notes with the checker."""
    root, partner = prompt.splitlines()
    found = await trio.to_thread.run_sync(survey, root)
    ctx.stream(f"surveyed {found['files']} files")
    await ctx.send(partner, f"{found['files']} files, {found['lines']} lines")
    verdict = (await ctx.receive()).text
    counts = ", ".join(f"{count} {what}" for what, count in found.items())
    return f"{ctx.address} found {counts}; the checker says: {verdict}"


async def checker(ctx: AgentContext, prompt: str) -> str:
    """Count the same files another way, and answer whoever asks whether they are right."""
    files, lines, digest = await trio.to_thread.run_sync(check, prompt)
    ctx.stream(f"checked {files} files")
    claim = await ctx.receive()
    mine = f"{files} files, {lines} lines"
    verdict = "I count the same" if claim.text == mine else f"I count {mine}"
    assert claim.sender is not None
    await ctx.send(claim.sender, verdict)
    return f"{ctx.address} answered {claim.sender}: {verdict}; the files' digest is {digest[:12]}"


def files_under(root: str) -> Iterator[Path]:
    """The files of a directory tree, or the one file, without what is hidden or made by Python."""
    start = Path(root)
    if start.is_file():
        return iter([start])
    found = (
        path
        for path in sorted(start.rglob("*"))
        if path.is_file()
        and not any(p.startswith(".") or p == "__pycache__" for p in path.relative_to(start).parts)
    )
    return islice(found, FILE_LIMIT)


def survey(root: str) -> dict[str, int]:
    """What is in the files."""
    found = {"files": 0, "lines": 0, "functions": 0, "classes": 0}
    for path in files_under(root):
        text = path.read_bytes().decode("utf-8", "replace")  # as bytes: no line ending is translated
        found["files"] += 1
        found["lines"] += text.count("\n")
        if path.suffix == ".py":
            for node in ast.walk(_parse(text)):
                found["functions"] += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                found["classes"] += isinstance(node, ast.ClassDef)
    return found


def _parse(text: str) -> ast.AST:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):  # somebody's template or test data
        return ast.Module(body=[], type_ignores=[])


def check(root: str) -> tuple[int, int, str]:
    """How many files and lines there are, and a digest of all their bytes."""
    files, lines, digest = 0, 0, hashlib.sha256()
    for path in files_under(root):
        data = path.read_bytes()
        files, lines = files + 1, lines + data.count(b"\n")
        digest.update(data)
    return files, lines, digest.hexdigest()
