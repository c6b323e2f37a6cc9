"""Training from the command line: one runnable module a task, one loop (`train.loop`) for all."""
