"""The commands of `sf2`, a file each; `sf2_plugin.cli` lists them."""
