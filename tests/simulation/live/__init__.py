"""The world with the real runtime in its processes: trio's tasks, the codec, channels of bytes.

Everything runs in one ``trio.run`` whose clock is the schedule of the simulation and whose scheduler is
seeded, so a seed gives the same run everywhere. No task touches a socket, a thread or a child process.
Reading order: ``scheduler`` (what makes trio repeatable), ``halting`` (how to kill -9 a task),
``streams`` (TCP, as bytes), ``processes``, ``programs`` and ``agents`` (who runs), ``world``.
"""
