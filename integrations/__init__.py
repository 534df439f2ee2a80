"""Adapters: SphereFace2 in the frameworks people train with, one package for each."""
