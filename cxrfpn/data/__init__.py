"""Radiographs with their findings: read, planned, augmented, loaded."""
