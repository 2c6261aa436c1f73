"""Reading facial expressions: data sets, networks, training and evaluation of the book *Reading Faces*."""

__version__ = "0.1.0"
