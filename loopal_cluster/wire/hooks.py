"""How each record looks as JSON: the one cattrs converter, and the conventions of ``messages``.

A field's name on the wire is its own unless ``wire`` says otherwise; an ``extension`` is left out
at its default; ``extra`` keeps the keys of other versions; unknown keys elsewhere are ignored, so
that versions can be mixed. Enums are those of serde. ``strict`` has the values and the paths of
faults; ``codec`` has the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

import attrs
import msgspec
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from msgspec import Meta, Raw, Struct

from loopal_cluster import messages as m
from loopal_cluster.labels import MAX_ID, MAX_LABEL, cut, label, sender_name
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, TimedOut
from loopal_cluster.payloads import PAYLOADS, MessageRouted, Payload
from loopal_cluster.wire.faults import words
from loopal_cluster.wire.framing import SHORT
from loopal_cluster.wire.strict import (
    Hook,
    Int64,
    is_null,
    json_key,
    read_array,
    read_object,
    read_opaque,
    read_str,
    read_tagged,
    register_strict,
    within,
)

__all__ = ["CONVERTER", "preview"]

Write = Callable[[Any], Any]

PREVIEW_BYTES: Final = 80
MAX_ANNOUNCED: Final = 20_000
"""Agents in one announcement; a hub of ours announces 500 at a time."""

_SOURCES: Final[Mapping[str, type]] = {
    "Human": m.HumanSource,
    "Agent": m.AgentSource,
    "Channel": m.ChannelSource,
    "Scheduled": m.ScheduledSource,
    "System": m.SystemSource,
}
_NEWTYPES: Final = frozenset({m.AgentSource, m.SystemSource})
"""Variants whose body is the value of their one field."""

_OUTCOMES: Final[Mapping[str, type]] = {cls.kind: cls for cls in (Done, Failed, Cancelled, TimedOut, Lost)}

_OMITTED_WHEN_NONE: Final[Mapping[type, frozenset[str]]] = {
    # Loopal writes a missing option as null, but not these two: it reads them as plain strings, an
    # agent never names a parent itself, and a directory of one hub means nothing on another.
    m.SpawnSpec: frozenset({"cwd", "parent"}),
    # It would be an ``extension``, if ``outcomes`` knew of the wire.
    Failed: frozenset({"traceback"}),
}


class _TextOf(Struct, frozen=True):
    """Of a message's content only the text: a hub has no reason to read, or to refuse, the rest."""

    text: str = ""


_read_text: Final = msgspec.json.Decoder(_TextOf).decode


def preview(content: str | m.UserContent | m.Opaque) -> str:
    """The start of a text as Loopal shows it: at most 80 bytes, cut back to a whole character.

    Raises:
        ValueError: an unread content has no readable text.
    """
    if isinstance(content, m.Opaque):
        text = _read_text(content.json).text
    else:
        text = content if isinstance(content, str) else content.text
    return text[:PREVIEW_BYTES].encode()[:PREVIEW_BYTES].decode(errors="ignore")


# Records.


def _safe_envelope(envelope: m.Envelope) -> m.Envelope:
    """One that is as ``one_pass`` reads it. Of these texts the record does not see to itself: it is made often."""
    if len(envelope.id) > MAX_ID:
        raise ValueError(f"the id of a message has at most {MAX_ID} characters")
    timestamp, hub = cut(envelope.timestamp, MAX_LABEL), label(envelope.origin_hub)
    return attrs.evolve(envelope, timestamp=timestamp, origin_hub=hub)


def _safe_event(event: m.AgentEvent) -> m.AgentEvent:
    return m.AgentEvent(sender_name(event.agent_name), event.payload)


_MADE_SAFE: Final[Mapping[type, Callable[[Any], Any]]] = {
    m.Envelope: _safe_envelope,
    m.AgentEvent: _safe_event,
}


def _read_record(cls: type, converter: Converter) -> Hook:
    fields = attrs.fields(cls)
    renames: Any = {field.name: override(rename=json_key(field)) for field in fields}
    structure: Hook = make_dict_structure_fn(cls, converter, **renames)
    if cls in _MADE_SAFE:
        safe = _MADE_SAFE[cls]
        return lambda text, type_: safe(structure(read_object(text), type_))
    if "extra" not in attrs.fields_dict(cls):
        return lambda text, type_: structure(read_object(text), type_)
    known = {json_key(field) for field in fields if field.name != "extra"}

    def structure_with_extra(text: Raw, type_: Any) -> Any:
        values = read_object(text)
        extra = {key: read_opaque(values.pop(key)) for key in [*values] if key not in known}
        return attrs.evolve(structure(values, type_), extra=extra)

    return structure_with_extra


def _write_record(cls: type, converter: Converter) -> Write:
    omitted = _OMITTED_WHEN_NONE.get(cls, frozenset())
    overrides: Any = {
        field.name: override(
            rename=json_key(field),
            omit_if_default=field.name in omitted or "extension" in field.metadata,
        )
        for field in attrs.fields(cls)
    }
    unstructure: Write = make_dict_unstructure_fn(cls, converter, **overrides)
    if "extra" not in attrs.fields_dict(cls):
        return unstructure

    def unstructure_with_extra(record: Any) -> Any:
        known = unstructure(record)
        extra = known.pop("extra")
        return extra | known

    return unstructure_with_extra


def _is_message(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, m.Message)


def _read_message(cls: Any, converter: Converter) -> Hook:
    """From ``params``: an object of the fields, or the value of the one field that is inline."""
    if not attrs.fields(cls):
        # Loopal ignores the params of such methods, and some peers send null.
        return lambda _, __: cls()
    if not cls.inline:
        return _read_record(cls, converter)
    inner = attrs.fields_dict(attrs.resolve_types(cls))[cls.inline].type
    hook = converter.get_structure_hook(inner)
    return lambda text, _: cls(hook(text, inner))


def _write_message(cls: Any, converter: Converter) -> Write:
    if cls.inline:
        return lambda message: converter.unstructure(getattr(message, cls.inline))
    return _write_record(cls, converter)


# Enums.


def _register_enum(converter: Converter, union: Any, variants: Mapping[str, type]) -> None:
    """Serde's default form of an enum: ``"Unit"``, ``{"Newtype":value}``, ``{"Struct":{..}}``."""

    def structure(text: Raw, _: Any) -> Any:
        tag, body = read_tagged(text)
        if (cls := variants.get(tag)) is None:
            raise ValueError(f"unknown variant {tag[:80]!r}")
        if cls in _NEWTYPES:
            name = within(tag, read_str, body, str)
            return cls(sender_name(name) if cls is m.AgentSource else name)
        if attrs.fields(cls):
            return within(tag, converter.get_structure_hook(cls), body, cls)
        if is_null(body):
            return cls()
        raise ValueError(f"variant {tag!r} takes no value")

    converter.register_structure_hook_func(lambda type_: type_ == union, structure)
    tags = {cls: tag for tag, cls in variants.items()}
    _write_when_used(converter, tags, lambda cls: _write_variant(tags[cls], cls, converter))


def _write_when_used(converter: Converter, classes: Collection[type], make: Callable[[type], Write]) -> None:
    """Make the hook of a class when it is first written: no process writes all of them."""
    converter.register_unstructure_hook_factory(lambda type_: type_ in classes, make)


def _write_variant(tag: str, cls: type, converter: Converter) -> Write:
    fields = attrs.fields(cls)
    if not fields:
        return lambda _: tag
    if cls in _NEWTYPES:
        return lambda record: {tag: getattr(record, fields[0].name)}
    body = _write_record(attrs.resolve_types(cls), converter)
    return lambda record: {tag: body(record)}


# Records of a shape of their own.


def _read_outcome(text: Raw, _: Any) -> Any:
    values = read_object(text)
    kind = within("outcome", read_str, values.get("outcome", Raw(b"null")), str)
    if (cls := _OUTCOMES.get(kind)) is None:
        raise ValueError(f"unknown outcome {kind[:80]!r}")
    return CONVERTER.get_structure_hook(cls)(text, cls)


def _write_outcome(cls: type, converter: Converter) -> Write:
    body = _write_record(attrs.resolve_types(cls), converter)
    return lambda outcome: {"outcome": outcome.kind} | body(outcome)


def _read_topology_of(text: Raw, _: Any) -> m.TopologyOf:
    values = read_object(text)
    hub = within("hub", read_str, values.get("hub", Raw(b"null")), str)
    topology = values.get("topology", Raw(b"null"))
    failed = within("topology", read_object, topology, dict)
    # ``error`` is Loopal's own word; with ``message`` it is a hub's error object, put here unread.
    for key in ("error", "message"):
        if key in failed and "agents" not in failed:
            return m.TopologyOf(hub, error=within(key, read_str, failed[key], str))
    hook = CONVERTER.get_structure_hook(m.HubTopology)
    return m.TopologyOf(hub, within("topology", hook, topology, m.HubTopology))


def _write_topology_of(part: m.TopologyOf) -> dict[str, Any]:
    if part.topology is None:
        return {"hub": part.hub, "topology": {"error": part.error or ""}}
    return {"hub": part.hub, "topology": CONVERTER.unstructure(part.topology)}


def _write_routed(routed: MessageRouted) -> dict[str, Any]:
    try:
        shown = preview(routed.content_preview)
    except ValueError:
        shown = ""  # content that its reader will refuse, too; the event is still true
    return {"MessageRouted": {"content_preview": shown, "source": routed.source, "target": routed.target}}


class _Announced(Struct, frozen=True):
    id: str
    name: str
    type: str | None = None
    parent: str | None = None
    up_ms: Int64 = 0


_read_announced: Final = msgspec.json.Decoder(
    Annotated[list[_Announced], Meta(max_length=MAX_ANNOUNCED)]
).decode


def _read_all_announced(text: Raw, _: Any) -> tuple[m.Announced, ...]:
    """In one pass: a hub may announce thousands, and nobody is served meanwhile."""
    try:
        entries = _read_announced(text)
    except msgspec.ValidationError as error:
        if len(text) > SHORT:
            raise ValueError(words(error, "")) from None
        entries_type: Any = list[m.Announced]  # the long way, which names the place
        return tuple(CONVERTER.get_structure_hook(entries_type)(read_array(text), entries_type))
    return tuple(
        m.Announced(entry.name, entry.id, entry.type, entry.parent, entry.up_ms) for entry in entries
    )


def _make_converter() -> Converter:
    converter = Converter()
    converter.register_structure_hook_factory(attrs.has, _read_record)
    converter.register_unstructure_hook_factory(attrs.has, _write_record)
    converter.register_structure_hook_factory(_is_message, _read_message)
    converter.register_unstructure_hook_factory(_is_message, _write_message)
    register_strict(converter)
    _register_enum(converter, m.Source, _SOURCES)
    _register_enum(converter, Payload, PAYLOADS)
    converter.register_unstructure_hook(MessageRouted, _write_routed)
    converter.register_structure_hook_func(lambda type_: type_ == Outcome, _read_outcome)
    _write_when_used(converter, _OUTCOMES.values(), lambda cls: _write_outcome(cls, converter))
    converter.register_structure_hook(m.TopologyOf, _read_topology_of)
    converter.register_unstructure_hook(m.TopologyOf, _write_topology_of)
    # What hubs pass on: the payload of an event (declared Any) and the content of a message.
    converter.register_structure_hook_func(lambda type_: type_ is Any, read_opaque)
    converter.register_structure_hook_func(
        lambda type_: type_ == tuple[m.Announced, ...], _read_all_announced
    )
    converter.register_structure_hook_func(lambda type_: type_ == m.UserContent | m.Opaque, read_opaque)
    # A preview is cut when it is written; whoever reads it gets text.
    converter.register_structure_hook_func(lambda type_: type_ == str | m.UserContent | m.Opaque, read_str)
    return converter


CONVERTER: Final = _make_converter()
