"""Code of this book: `study` runs the experiments, `report` shows their results."""

import warnings

# Progress is shown as text, in notebooks too, so that pages and stored outputs need no widgets.
warnings.filterwarnings("ignore", message="IProgress not found")
