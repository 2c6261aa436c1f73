"""Code of this book: `study` runs the experiments, `report` shows their results."""
