"""Real image-caption pairs for the demo and the benchmarks, and the noise planted in them."""
