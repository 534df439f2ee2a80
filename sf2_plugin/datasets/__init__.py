"""Data sets made of photos: aligned, split, paired, packed, checked, audited."""
