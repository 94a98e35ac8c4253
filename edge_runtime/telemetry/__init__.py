"""What a machine does and under which conditions: power, heat, clocks, load, memory, power mode."""
