"""ProHMR: p(theta | image) over SMPL's pose, trained from images, evaluated and shown."""
