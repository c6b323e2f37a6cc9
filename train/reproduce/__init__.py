"""The published tables, run again: python -m train.reproduce"""
