"""Direction getters: what a network says about the next direction, as a loss to train on and a step to take."""
