"""Block sizes: how much is held in memory at once.

Every one is a bound on memory, and no benchmark tunes it. They are read when they are used, so that a
test can change them. A change moves results by rounding only, except where seeded draws follow the
blocks, as noted.
"""

from __future__ import annotations

ENCODED_CELLS = 512
"""Cells encoded at once by abilities that choose the minibatch. Seeded draws follow it."""

DIAGNOSED_CELLS = 250
"""Cells encoded at once by a diagnosis, with copies that lack a dimension. Seeded draws follow it."""

SCORED_CELLS = 64
"""Cells scored at once, each with all of its draws, in double precision. Seeded draws follow it."""

SIMULATED_CELLS = 4096
"""Cells simulated at once: means, counts and probabilities of all genes. Seeded draws follow it."""

DRAWN_VALUES = 2**18
"""Drawn counts scored at once: 1 MiB of single precision, which stays in a cache."""

DECODED_POINTS = 64
"""Latent positions decoded at once, each with draws around it, for all features."""

DENSE_CELLS = 1024
"""Cells whose counts, or distances to all others, are dense at once, in double precision."""

TRANSLATED_CELLS = 1000
"""Cells of which a translation reads the target's counts at once, dense in double precision."""

PROFILED_CELLS = 512
"""Cells of which a mean profile, or a medoid, is computed at once, dense in double precision."""

HELD_OUT_CELLS = 512
"""Cells whose held-out counts and predictions are dense at once."""

DENSE_GENES = 1000
"""Genes whose residuals are dense at once, for all cells."""

MIXED_POSTERIORS = 64
"""Draws compared with all posteriors at once, by dimension."""

DENSITY_POSITIONS = 4096
"""Positions at which a mixture density is evaluated at once, by component."""

SCANNED_ENTRIES = 2**24
"""Stored entries of a matrix that are scanned at once: 64 MiB in single precision."""

CHUNK_ENTRIES = 2**17
"""Entries of a sparse matrix in one chunk of a file."""
