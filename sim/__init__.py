"""The simulation harness: runs scenarios through the same path as production, offline and reproducibly."""
