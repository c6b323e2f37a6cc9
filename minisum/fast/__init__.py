"""Faster forms of the operations, each equal to its plain form."""
