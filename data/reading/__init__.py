"""From files to rows: formats, columns, sources, splits."""
