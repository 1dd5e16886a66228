"""What is particular to Binance: wire formats and clients. Nothing here writes to disk."""
