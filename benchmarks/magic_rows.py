"""MAGIC on counts in a file: ``python magic_rows.py counts.npz out.npy transform``.

This script does not import betavi, because MAGIC needs older versions of the libraries.
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
# smoothed values can be slightly negative, on the linear scale too
expected = back(np.clip(np.asarray(smoothed), 0, None)) / unit * totals
np.save(sys.argv[2], expected.astype(np.float32))
