"""What pretrained weights are worth after another mixer has taken attention's place."""
