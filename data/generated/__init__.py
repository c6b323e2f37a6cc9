"""Corpora that every machine has or can make."""
