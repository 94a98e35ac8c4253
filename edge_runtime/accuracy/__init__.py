"""What INT8 costs: which layers, how much on a task, and how to keep within a budget."""
