"""The hosts, on trio: each drives a core, carries out what it decides, and runs what is connected to it."""
