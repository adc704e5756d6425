"""The trio side: tasks, channels, sockets. It carries out what the cores decide."""
