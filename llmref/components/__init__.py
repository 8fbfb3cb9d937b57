"""The parts around attention: linear maps, rotary positions, gated layers, adapters, tokens."""
