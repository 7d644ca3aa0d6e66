"""Smaller networks, and the proof that they are right: surgery, the masked reference, verification."""
