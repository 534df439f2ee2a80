"""Reports shown: tables, plots, and one self-contained page."""
