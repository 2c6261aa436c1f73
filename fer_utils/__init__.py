"""Reading facial expressions: the package behind the notebook book *Reading Faces*.

The notebooks narrate; this package holds what they repeat: readers for the data sets, the merge, the
three networks (EmoNet, EasyNet, FaceNet), training, evaluation and the book's figures.
"""

import warnings

# Progress is shown as text, in notebooks too, so that pages and stored outputs need no widgets.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
