"""Tests of durability: what a kill or a power cut at any instant may leave behind, and what a reader may see of it."""
