"""Where work is done: in a child process, side by side, in parts by helpers, on the nodes of a Ray cluster."""
