"""Bytes on one side, frames on the other: the only home of JSON.

``framing`` cuts a byte stream into lines, ``codec`` turns a line into a frame and back, ``hooks``
says how each record looks as JSON; ``one_pass`` is a faster way for the few kinds of line that there are
most of. Nothing here knows trio or a core.
"""
