#!/usr/bin/env bash
# myst-nb 1.4.0 and numpy 2.4.6: a number of numpy that is glued into the text with a format leaves a gap on the page.
#
# Guess: `glue("accuracy", np.mean(right))` and {glue:text}`accuracy:.1%` print 68.9%, as they do for a Python float.
# Seen: the number passes through its repr, since numpy 2 "np.float64(0.689)". With a format, nothing is printed ("reach
#   an accuracy of  on"), and the build succeeds with one warning; without a format the page says np.float64(0.689).
#   numpy's mean and scikit-learn's scores are such numbers.
# Here: `glue_number` formats the value in Python and glues plain text.
#
# Prints the lines of a built page. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "myst-nb==1.4.0" "numpy==2.4.6" "ipykernel==7.4.0" 2> pip.log || { cat pip.log; exit 2; }
mkdir book
echo 'extensions, nb_execution_mode = ["myst_nb"], "force"' > book/conf.py
cat > book/index.md <<'MARKDOWN'
---
file_format: mystnb
kernelspec: {display_name: Python 3, name: python3}
---
# Score

```{code-cell}
import numpy as np
from myst_nb import glue

right = np.array([True, True, False])
glue("accuracy", right.mean(), display=False)
glue("plain", float(right.mean()), display=False)
```

Plain {glue:text}`plain:.1%` end.

Formatted {glue:text}`accuracy:.1%` end.

Bare {glue:text}`accuracy` end.
MARKDOWN
env/bin/python -c 'import myst_nb, numpy; print("myst-nb", myst_nb.__version__, "numpy", numpy.__version__)'
PATH="$folder/env/bin:$PATH" env/bin/python -m sphinx -q -b text book page 2> warnings.txt || { cat warnings.txt; exit 2; }
grep "end\.$" page/index.txt
grep -o "Failed to format.*" warnings.txt
grep -q "^Plain 66.7% end" page/index.txt
grep -Eq "^Formatted +end" page/index.txt
grep -q "^Bare np.float64(0.66" page/index.txt
