"""MAGIC on counts in a file, run by a Python that has it: ``python magic_rows.py counts out.npy transform``.

Stands alone, as MAGIC needs older versions of its libraries than betavi does.
"""

import sys

import magic
import numpy as np
from scipy import sparse

counts = sparse.load_npz(sys.argv[1]).astype(float)
totals = np.asarray(counts.sum(axis=1)).reshape(-1, 1)
unit = np.median(totals)
shares = counts.toarray() / np.maximum(totals, 1) * unit
transform, back = {
    "sqrt": (np.sqrt, np.square),
    "linear": (lambda values: values, lambda values: values),
}[sys.argv[3]]
smoothed = magic.MAGIC(random_state=0, verbose=0, n_jobs=1).fit_transform(transform(shares))
# on the linear scale too it goes a little below zero
expected = back(np.clip(np.asarray(smoothed), 0, None)) / unit * totals
np.save(sys.argv[2], expected.astype(np.float32))
