"""Pictures: how they are read and how they become input tensors."""
