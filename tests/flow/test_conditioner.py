import math

import torch

from flowprior.flow import Conditioner
from tests.flow.helpers import assert_close, draw


def make(**kwargs) -> Conditioner:
    options = {"batch_norm": False, "dropout": 0.0, **kwargs}
    return Conditioner(6, 5, 7, 32, 2, **options).double()


def test_first_layer_starts_as_one_linear_layer_on_both_inputs():
    net = make()
    bound = 1 / math.sqrt(6 + 7)
    for part in (net.input.weight, net.input.bias, net.context_weight):
        assert part.abs().max() <= bound
    assert net.context_weight.abs().max() > 0.9 * bound


def test_it_starts_close_to_zero():
    net = make()
    assert net.output.weight.abs().max() <= 0.01 / math.sqrt(32)
    assert net.output.bias.abs().max() <= 0.01 / math.sqrt(32)
    for block in net.blocks:
        assert block.linears[1].weight.abs().max() <= 1e-3
        assert block.linears[1].bias.abs().max() <= 1e-3
        assert block.linears[0].weight.abs().max() > 1e-2


def test_projected_context_is_the_whole_of_the_context():
    net = make()
    x, context = draw(4, 6), draw(4, 7)
    joined = torch.cat((net.input.weight, net.context_weight), dim=1)
    hidden = torch.cat((x, context), dim=1) @ joined.mT + net.input.bias
    for block in net.blocks:
        hidden = block(hidden)
    assert_close(net(x, net.project_context(context)), net.output(hidden), 1e-12)


def test_one_projection_serves_many_rows():
    net = make()
    x, context = draw(4, 3, 6), draw(4, 7)
    projected = net.project_context(context)
    together = net(x, projected[:, None])
    for n in range(3):
        assert_close(together[:, n], net(x[:, n], projected), 1e-12)


def test_batch_norm_sees_all_leading_axes_as_rows():
    x, context = draw(4, 3, 6), draw(4, 7)
    nets = [make(batch_norm=True) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    deep = nets[0](x, nets[0].project_context(context)[:, None])
    repeated = context.repeat_interleave(3, dim=0)
    flat = nets[1](x.reshape(12, 6), nets[1].project_context(repeated))
    assert_close(deep.reshape(12, 5), flat, 1e-12)
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(value, nets[1].state_dict()[name])


def test_batch_norm_epsilon_is_the_original_one():
    assert make(batch_norm=True).blocks[0].norms[0].eps == 1e-5


def test_one_row_in_training_uses_running_statistics_and_leaves_them():
    net = make(batch_norm=True)
    net(draw(50, 6), net.project_context(draw(50, 7)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, context = draw(1, 6), draw(1, 7)
    trained = net(x, net.project_context(context))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.eval()
    assert_close(trained, net(x, net.project_context(context)), 1e-12)


def test_no_context():
    net = Conditioner(6, 5, 0, 32, 2, batch_norm=False, dropout=0.0)
    assert net.context_weight is None
    assert net(torch.randn(3, 6), net.project_context(torch.empty(3, 0))).shape == (3, 5)


def test_one_input_feature_has_the_widest_start():
    net = Conditioner(1, 1, 0, 2000, 0, batch_norm=False, dropout=0.0)
    assert 0.95 < net.input.weight.abs().max() <= 1


def test_batch_statistics_of_two_rows():
    net = make(batch_norm=True)
    before = net.blocks[0].norms[0].running_mean.clone()
    net(draw(2, 6), net.project_context(draw(2, 7)))
    assert not torch.equal(net.blocks[0].norms[0].running_mean, before)


def test_a_folded_block_is_exact_and_constant():
    block = make(batch_norm=True).float().blocks[0].eval()
    for norm in block.norms:
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
        norm.weight.data.normal_(), norm.bias.data.normal_()
    first, inner, outer = block.folded()
    parts = [part for pair in (first, inner, outer) for part in pair]
    assert all(part.dtype == torch.float64 and not part.requires_grad for part in parts)
    rows = draw(9, 32)
    hidden = torch.relu(first[0] * rows + first[1])
    hidden = torch.relu(hidden @ inner[0].mT + inner[1])
    expected = rows + hidden @ outer[0].mT + outer[1]
    assert_close(block.double()(rows).detach(), expected, 1e-12)


def test_half_precision_weights_take_inputs_of_more():
    net = make().bfloat16()
    out = net(draw(4, 6).float(), net.project_context(draw(4, 7).float()))
    assert out.dtype == torch.float32


def test_biases_start_on_both_sides_of_zero():
    torch.manual_seed(0)
    bias = Conditioner(4, 9, 2, 64, 1, batch_norm=False, dropout=0.0).output.bias.detach()
    assert bias.min() < 0 < bias.max()
    assert bias.abs().max() < 0.01
