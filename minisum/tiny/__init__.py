"""Two whole models, one file each, that need nothing but NumPy."""
