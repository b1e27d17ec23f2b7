"""Block sizes, which bound the memory in use.

The values are not tuned. They are read at call time, so that a test can change them. A change
alters results by rounding only, except where noted: some seeded draws depend on the block size.
"""

from __future__ import annotations

ENCODED_CELLS = 512
"""Cells encoded at once where the user cannot set the batch size. Seeded draws depend on it."""

DIAGNOSED_CELLS = 250
"""Cells encoded at once in a diagnosis, with and without a dimension. Seeded draws depend on it."""

SCORED_CELLS = 64
"""Cells scored at once, with all draws in double precision. Seeded draws depend on it."""

SIMULATED_CELLS = 4096
"""Cells simulated at once, with arrays for all genes. Seeded draws depend on it."""

SIMULATED_IMAGES = 128
"""Images simulated at once, with the curves of all their filaments. Seeded draws depend on it."""

SCORED_IMAGES = 128
"""Images transformed or filtered at once, in double precision."""

DRAWN_VALUES = 2**18
"""Drawn counts scored at once: 1 MiB of single precision, which stays in a cache."""

DECODED_POINTS = 64
"""Latent positions decoded at once, each with draws around it, for all features."""

DENSE_CELLS = 1024
"""Cells whose counts, or distances to all other cells, are dense in double precision at once."""

TRANSLATED_CELLS = 1000
"""Cells whose target counts a translation reads at once, dense in double precision."""

PROFILED_CELLS = 512
"""Cells whose mean profile, or medoid, is computed at once, dense in double precision."""

HELD_OUT_CELLS = 512
"""Cells whose held-out counts and predictions are dense at once."""

DENSE_GENES = 1000
"""Genes whose residuals are dense at once, for all cells."""

STORED_VALUES = 2**23
"""Residuals that are stored instead of computed again: 64 MiB in double precision."""

MIXED_POSTERIORS = 64
"""Draws compared with all posteriors at once, in each dimension."""

DENSITY_POSITIONS = 4096
"""Positions at which all components of a mixture density are evaluated at once."""

SCANNED_ENTRIES = 2**24
"""Stored entries of a matrix scanned at once, 64 MiB in single precision."""

READ_ROWS = 4096
"""Rows of a file that are read at once, with unwanted rows between wanted ones."""

FILE_ENTRIES = 2**23
"""Entries of a file that are in memory at once: 64 MiB. The order of minibatches depends on it."""

CHUNK_ENTRIES = 2**17
"""Entries of a sparse matrix in one chunk of a file."""
