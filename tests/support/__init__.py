"""What several tests need: homes filled with chosen klines, and oracles."""
