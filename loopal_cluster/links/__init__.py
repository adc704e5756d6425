"""Connections on trio, without a core: channels of frames, callers, clients, listeners, and what they need."""
