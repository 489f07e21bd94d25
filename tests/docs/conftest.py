from tests.examples.conftest import _embedded_poses_sampled_once  # noqa: F401
