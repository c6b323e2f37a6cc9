"""Corpora, tokenisers and batches: code that reads text, never the text itself."""
