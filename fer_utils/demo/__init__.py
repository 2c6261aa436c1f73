"""Faces drawn by a program, in the official layouts of the data sets."""
