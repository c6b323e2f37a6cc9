"""Mixers side by side on tasks that need no download: python -m train.compare"""
