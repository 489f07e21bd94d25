"""ProHMR: p(theta | image) over SMPL's pose, with training, evaluation and a demo."""
