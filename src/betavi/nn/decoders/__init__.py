"""Decoders, one file each."""

from __future__ import annotations

from betavi.nn.decoders._base import Decoder
from betavi.nn.decoders.additive import AdditiveDecoder
from betavi.nn.decoders.convolutional import ConvolutionalDecoder
from betavi.nn.decoders.plain import PlainDecoder

DECODERS: dict[str, type[Decoder]] = {
    "plain": PlainDecoder,
    "additive": AdditiveDecoder,
    "convolutional": ConvolutionalDecoder,
}
"""Decoders by name, ``decoder=``. Images always have the decoder ``"convolutional"``."""

__all__ = ["DECODERS", "Decoder"]
