"""The corpora that are known by name, a loader a task."""
