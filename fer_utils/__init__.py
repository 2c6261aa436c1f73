"""Reading facial expressions: the package behind the notebook book *Reading Faces*.

The notebooks narrate; this package holds what they repeat: readers for the data sets, the merge, the
three networks (EmoNet, EasyNet, FaceNet), training, evaluation and the book's figures.
"""

__version__ = "0.1.0"
