"""Keeps events on disk while the store is away, and those that it acknowledged lately in case it forgets them."""

from shared.disk_buffer.buffer import DiskBuffer
from shared.disk_buffer.entries import BufferedEntry, Remembered

__all__ = ["BufferedEntry", "DiskBuffer", "Remembered"]
