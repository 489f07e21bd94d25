import pytest
import torch

from flowprior.fitting.sequence.tangent import chart_with_jacobian, inverse_right_jacobian
from flowprior.rotations import matrix_to_chart, matrix_to_rotvec, rotvec_to_matrix


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.03, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("which", ["logarithm", "chart"])
def test_derivatives_equal_numerical_ones(angle, which):
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    rotvec = angle * axis / axis.norm(dim=-1, keepdim=True)
    matrix = rotvec_to_matrix(rotvec)
    if which == "logarithm":
        function, derivative = matrix_to_rotvec, inverse_right_jacobian(rotvec)
    else:
        function = matrix_to_chart
        value, derivative = chart_with_jacobian(matrix)
        torch.testing.assert_close(value, function(matrix), atol=1e-7, rtol=0)
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    for column in range(3):
        ahead = function(matrix @ rotvec_to_matrix(step[column]))
        back = function(matrix @ rotvec_to_matrix(-step[column]))
        expected = (ahead - back) / 2e-6
        torch.testing.assert_close(derivative[..., column], expected, atol=2e-3, rtol=0)
