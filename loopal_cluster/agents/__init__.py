"""What a hub can run: async functions, child processes, commands."""
