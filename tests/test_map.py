"""Where a module's tests are: in the file of its own name, or where ``STORIES`` says; and what mypy is strict with.

``loopal_cluster/core/pending.py`` has ``tests/core/test_pending.py``. A test that follows a message, an ask or a spawn
through several modules is named after what it tells, and is listed with the modules that it tells most of.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "loopal_cluster"

STORIES: dict[str, str] = {
    "acp/agent": "acp/sdk_agent runtime/hub_agents",
    "acp/hub_turn": "acp/agent",
    "acp/modes": "acp/agent",
    "acp/presets": "acp/agent cli/doctor",
    "acp/program": "acp/agent",
    "agents/child": "agents/types",
    "agents/context": "agents/types agents/session runtime/cluster",
    "cli/app": "cli/tokens cli/timeouts",
    "cli/connect": "cli/timeouts cli/discovery",
    "cli/demo": "end_to_end/demo",
    "cli/lines": "cli/attach cli/unread",
    "cli/logs": "cli/hub",
    "cli/look": "cli/status",
    "cli/show": "cli/look cli/status",
    "completions": "core/remote core/meta_asks",
    "config": "wire/contents agents/profiles",
    "core/agents": "core/agent_states core/hub",
    "core/announcements": "core/uplink core/reconciler",
    "core/approvals": "core/approvers",
    "core/base_agents": "conformance/base_agent",
    "core/circles": "runtime/circles",
    "core/context": "core/timeline",
    "core/deliveries": "core/asking core/asking_again",
    "core/effects": "core/weight core/fuzz",
    "core/events": "core/fuzz",
    "core/exchange": "core/repeat core/asking_again runtime/repeat runtime/reconnect",
    "core/hub": "core/fuzz conformance/base_hub runtime/hub_agents",
    "core/hub_approvals": "core/approvals core/approvers",
    "core/hub_connections": "core/hub core/owners",
    "core/hub_lookup": "core/hub",
    "core/hub_routing": "core/asking core/circles runtime/relay",
    "core/hub_spawns": "core/remote core/time_limits",
    "core/membership": "core/claims",
    "core/meta_approvals": "core/approvers core/meta_asks",
    "core/meta_hub": "core/meta_asks core/lazy_envelopes conformance/base_meta_hub",
    "core/meta_membership": "core/membership core/claims",
    "core/meta_lookup": "core/meta_asks",
    "core/meta_revocations": "core/meta_asks core/repeat",
    "core/meta_routing": "core/lazy_envelopes core/weight runtime/asks",
    "core/meta_spawns": "core/meta_asks core/reconciler",
    "core/owed": "core/bounds core/repeat",
    "core/parties": "core/handlers",
    "core/patience": "core/asking core/repeat",
    "core/refusals": "core/hub core/membership",
    "core/reports": "core/remote core/supervisor",
    "core/spawner": "core/supervisor core/remote core/time_limits",
    "core/steps": "core/pending core/deadlines",
    "core/waits": "core/hub core/results",
    "demo/agents": "end_to_end/demo",
    "editor/service": "editor/conformance",
    "editor/session": "editor/service",
    "errors": "runtime/attack exports",
    "events": "agents/session cli/attach",
    "frames": "wire/codec wire/classification",
    "links/ambient": "simulation/runtime_level",
    "links/background": "mcp_server/http",
    "links/channels": "links/transports",
    "links/cluster_client": "links/client cli/act",
    "links/descriptors": "links/admission",
    "links/greeting": "runtime/wrong_service",
    "links/kept": "runtime/texts",
    "links/listeners": "links/transports links/admission",
    "links/logs": "runtime/attack",
    "links/sockets": "links/transports",
    "mcp_server/door": "mcp_server/http mcp_server/bridge",
    "mcp_server/entrance": "mcp_server/http",
    "mcp_server/guests": "mcp_server/http",
    "mcp_server/session": "mcp_server/official_client",
    "message_sizes": "core/bounds core/timeline",
    "messages": "wire/codec wire/contents wire/golden protocol_document",
    "outcomes": "core/results wire/codec",
    "payloads": "wire/contents wire/golden",
    "runtime/hub": "runtime/cluster runtime/hub_agents end_to_end/unauthenticated",
    "runtime/meta_hub": "runtime/cluster runtime/reconnect",
    "runtime/outbox": "runtime/fairness",
    "runtime/runtime": "runtime/fairness runtime/attack runtime/request_order",
    "runtime/sizes": "runtime/fairness",
    "runtime/tokens": "cli/tokens end_to_end/unauthenticated",
    "testing/channels": "testing/faults",
    "testing/cluster": "testing/faults",
    "testing/driver": "core/pending core/hub",
    "testing/halting": "testing/faults",
    "testing/operators": "testing/faults",
    "testing/wires": "testing/faults",
    "texts": "core/kept labels",
    "tools/agent": "tools/toolbox",
    "tools/cluster": "tools/toolbox",
    "tools/mailbox": "tools/talk",
    "tools/quoting": "tools/talk",
    "tools/tool": "tools/toolbox",
    "wire/codec": "wire/classification wire/golden",
    "wire/faults": "wire/classification",
    "wire/hooks": "wire/contents wire/codec",
    "wire/jsonrpc": "wire/classification",
}
"""Tests of modules that have no file of their own, or not all in it; without ``test_`` and ``.py``."""


def file_of(name: str) -> Path:
    folder, _, stem = name.rpartition("/")
    return TESTS / folder / f"test_{stem}.py"


MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if not path.stem.startswith("__")
)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_tests_of_its_name_or_a_line_here(module):
    assert file_of(module).exists() or module in STORIES


@pytest.mark.parametrize("module", sorted(STORIES))
def test_a_line_here_names_a_module_and_tests_that_there_are(module):
    assert module in MODULES
    assert [name for name in STORIES[module].split() if not file_of(name).exists()] == []


@pytest.mark.parametrize("folder", ["core", "links", "runtime", "wire"])
def test_a_story_is_listed_with_a_module(folder):
    listed = {name for names in STORIES.values() for name in names.split()} | set(MODULES)
    stories = {f"{folder}/{path.stem.removeprefix('test_')}" for path in (TESTS / folder).glob("test_*.py")}

    assert stories - listed == {f"{folder}/map"} & stories


def test_what_tests_share_is_as_strictly_typed_as_the_package():
    settings = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    [strict] = [one for one in settings if one.get("disallow_untyped_defs")]
    shared = {
        re.sub(r"\.__init__$", "", ".".join(path.relative_to(TESTS.parent).with_suffix("").parts))
        for path in TESTS.rglob("*.py")
        if not path.name.startswith("test_")
    }

    assert sorted(strict["module"]) == sorted(shared)
