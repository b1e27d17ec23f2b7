from __future__ import annotations

import io

import torch


def reloaded(part, other):
    """Return another instance of a part with the part's saved state."""
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    return other
