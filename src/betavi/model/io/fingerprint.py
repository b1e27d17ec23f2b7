"""What a result depends on, in short: whether two calls ask for the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from betavi.data import AlignedRows

if TYPE_CHECKING:
    from scvi.module.base import BaseModuleClass

    from betavi.data import CellManager


def fingerprint(module: BaseModuleClass, manager: CellManager, *said: Any) -> str:
    """Return a digest of a module's weights, of all registered data, and of what is said.

    Parameters
    ----------
    module
        The module.
    manager
        Of the object that it reads.
    *said
        Whatever else matters: words, numbers and tuples of them.
    """
    digest = hashlib.sha256(repr(said).encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    digest.update("\0".join(map(str, manager.adata.obs_names)).encode())
    for key in sorted(manager.data_registry):
        rows = manager.rows(key)
        if isinstance(rows, AlignedRows):
            digest.update(np.ascontiguousarray(rows.position).tobytes())
            rows = rows.rows
        if rows is not None:
            for _, block in rows.blocks():
                _add(digest, block)
    return digest.hexdigest()


def _add(digest: Any, block: Any) -> None:
    if sparse.issparse(block):
        for part in (block.indptr, block.indices, block.data):
            digest.update(np.ascontiguousarray(part).tobytes())
    else:
        digest.update(np.ascontiguousarray(block).tobytes())
