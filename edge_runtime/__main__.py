"""Runs the command line: `python -m edge_runtime`."""

from edge_runtime.cli.main import main

if __name__ == "__main__":
    main()
