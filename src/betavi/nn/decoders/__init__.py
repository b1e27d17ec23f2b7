"""Decoders, one file each."""

from __future__ import annotations

from betavi.nn.decoders._base import Decoder
from betavi.nn.decoders.additive import AdditiveDecoder
from betavi.nn.decoders.plain import PlainDecoder

DECODERS: dict[str, type[Decoder]] = {"plain": PlainDecoder, "additive": AdditiveDecoder}
"""Decoders by name, ``decoder=``."""

__all__ = ["DECODERS", "Decoder"]
