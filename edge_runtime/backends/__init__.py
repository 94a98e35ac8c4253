"""The backends: what builds and runs a bundle on one kind of hardware."""
