"""How fast mlapp is, as ratios: every figure stands beside another one of the same run, on the same machine."""
