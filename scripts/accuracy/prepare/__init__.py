"""Models and data of the rows, made in an environment of their own that has PyTorch and Pillow."""
