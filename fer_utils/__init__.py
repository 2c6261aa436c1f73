"""Reading facial expressions: data sets, networks, training and evaluation of the book *Reading Faces*."""

import warnings

# Progress is shown as text, in notebooks too, so that pages and stored outputs need no widgets.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
