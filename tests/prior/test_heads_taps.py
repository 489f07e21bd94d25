"""Taps: what they capture, that they change nothing, and their errors."""

import gc
import weakref

import pytest
import torch
from torch import nn

from flowprior.prior.heads import tap


class Refiner(nn.Module):
    """A regressor that refines its answer: its layer ``head.pose`` runs several times."""

    def __init__(self, loops=3):
        super().__init__()
        torch.manual_seed(0)
        self.loops = loops
        self.backbone = nn.Linear(5, 8)
        self.head = nn.ModuleDict({"pose": nn.Linear(8, 4), "shape": nn.Linear(8, 2)})
        self.eval()

    def forward(self, x):
        state = self.backbone(x)
        answer = torch.zeros(len(x), 4)
        for _ in range(self.loops):
            state = state.tanh()
            answer = answer + self.head["pose"](state)
        self.state = state
        return answer


class ByImage(nn.Module):
    """A model that loops over the images of a batch, as PromptHMR does."""

    def __init__(self):
        super().__init__()
        self.pose = nn.Linear(3, 2)

    def forward(self, images):
        return [self.pose(image) for image in images]


x = torch.linspace(-1, 1, 15).reshape(3, 5)


def test_the_last_input_is_captured():
    model = Refiner()
    with tap(model, "head.pose") as opened:
        model(x)
        assert opened.num_calls == 3
        assert torch.equal(opened.value, model.state)
        assert opened.value.shape == (3, 8)


@pytest.mark.parametrize("counts", [(2,), (2, 3), (2, 0, 1)])
def test_all_inputs_can_be_joined(counts):
    model = ByImage()
    images = [torch.randn(count, 3) for count in counts]
    with tap(model, "pose", calls="all") as opened:
        model(images)
    assert torch.equal(opened.value, torch.cat(images))


@pytest.mark.parametrize("grad", [True, False])
def test_the_answer_is_unchanged_to_the_last_bit(grad):
    model, tapped = Refiner(), Refiner()
    with torch.set_grad_enabled(grad), tap(tapped, "head.pose"):
        answer = tapped(x)
        assert torch.equal(answer, model(x))
    assert answer.requires_grad == grad
    if grad:
        answer.sum().backward()
        model(x).sum().backward()
        for one, other in zip(model.parameters(), tapped.parameters(), strict=True):
            assert one.grad is other.grad is None or torch.equal(one.grad, other.grad)


def test_a_closed_tap_leaves_no_hook():
    model = Refiner()
    layer = model.head["pose"]
    before = dict(layer.__dict__)
    with tap(model, "head.pose") as opened:
        assert layer._forward_pre_hooks
        model(x)
    assert not layer._forward_pre_hooks
    assert not layer._forward_pre_hooks_with_kwargs
    assert before.keys() == layer.__dict__.keys()
    first = opened.value
    model(x + 1)
    assert torch.equal(opened.value, first)
    opened.close()  # again


def test_a_tap_closes_after_an_error_in_the_model():
    model = Refiner()
    with pytest.raises(RuntimeError, match="shapes"), tap(model, "head.pose"):
        model(torch.zeros(2, 3))
    assert not model.head["pose"]._forward_pre_hooks


def test_no_graph_and_no_larger_tensor_is_kept():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.pose = nn.Linear(4, 2)

        def forward(self, tokens):
            self.seen = weakref.ref(tokens)
            return self.pose((tokens * 1)[:, 0])

    model = Tokens()
    with tap(model, "pose") as opened:
        model(torch.randn(2, 1000, 4, requires_grad=True))
    value = opened.value
    assert not value.requires_grad
    assert value.grad_fn is None
    assert value.untyped_storage().nbytes() == 2 * 4 * 4
    gc.collect()
    assert model.seen() is None


def test_later_in_place_operations_do_not_alter_it():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.pose = nn.Identity()

        def forward(self, x):
            return self.pose(x).mul_(0)

    model = InPlace()
    with tap(model, "pose") as opened, torch.no_grad():
        model(torch.ones(2, 3))
    assert torch.equal(opened.value, torch.ones(2, 3))


def test_features_from_inference_mode_can_train_a_head():
    model = Refiner()
    with torch.inference_mode(), tap(model, "head.pose") as opened:
        model(x)
    layer = nn.Linear(8, 1)
    layer(opened.value).sum().backward()
    assert layer.weight.grad is not None


def test_a_keyword_input_and_the_model_itself():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.pose = nn.Linear(5, 2)

        def forward(self, x):
            return self.pose(input=x)

    model = Keyword()
    with tap(model, "pose") as opened, tap(model, "") as whole:
        model(x)
    assert torch.equal(opened.value, x)
    assert torch.equal(whole.value, x)


def test_taking_forgets():
    model = Refiner()
    with tap(model, "head.pose") as opened:
        model(x)
        taken = opened.take()
        assert torch.equal(taken, model.state)
        with pytest.raises(RuntimeError, match=r"head\.pose.*has not run"):
            opened.take()
        model(x)
        assert opened.num_calls == 3
        opened.clear()
        assert opened.num_calls == 0


def test_a_layer_that_never_runs_has_no_value():
    model = Refiner()
    with tap(model, "head.shape") as opened:
        model(x)
    with pytest.raises(RuntimeError, match="has not run since the tap was opened"):
        _ = opened.value


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("head.pos", r"similar: head\.pose"),
        ("smpl_head.pose", r"similar: head\.pose"),
        ("zzz", "its parts are backbone, head"),
    ],
)
def test_an_unknown_name_lists_similar_ones(name, hint):
    with pytest.raises(ValueError, match=f"Refiner has no layer '{name}'; {hint}"):
        tap(Refiner(), name)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
        tap(lambda x: x, "head")
    with pytest.raises(ValueError, match="calls must be one of"):
        tap(Refiner(), "head.pose", calls="first")
    with pytest.raises(ValueError, match=r"no layer 'pose'$"):
        tap(nn.Identity(), "pose")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused():
    scripted = torch.jit.trace(Refiner().backbone, x)
    with pytest.raises(ValueError, match="TorchScript module runs no hooks"):
        tap(scripted, "")


def test_tap_ignores_inputs_other_than_tensors():
    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Module()
            self.inner.forward = lambda batch: batch["img"] + 1

        def forward(self, batch):
            return self.inner(batch)

    model = Batch()
    with tap(model, "inner") as opened:
        assert torch.equal(model({"img": x}), x + 1)
    with pytest.raises(TypeError, match=r"input of layer 'inner' is dict, not a tensor"):
        _ = opened.value


@pytest.mark.parametrize("name", ["head.pose", "module.head.pose"])
def test_data_parallel_is_looked_through(name):
    model = nn.DataParallel(Refiner())
    with tap(model, name) as opened:
        model(x)
    assert opened.layer == "head.pose"
    assert torch.equal(opened.value, model.module.state)


def test_several_devices_have_no_order():
    model = Refiner()
    with tap(model, "head.pose") as opened:
        model(x)
        model.head["pose"].to("meta")(torch.zeros(2, 8, device="meta"))
    with pytest.raises(RuntimeError, match="several devices"):
        _ = opened.value


@pytest.mark.slow
def test_a_model_compiled_after_the_tap():
    model = Refiner()
    with tap(model, "head.pose") as opened:
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        with torch.no_grad():
            for shift in (0.0, 1.0):
                answer = compiled(x + shift)
                torch.testing.assert_close(answer, Refiner()(x + shift))
                assert opened.num_calls == 3
                torch.testing.assert_close(
                    opened.take(), model.backbone(x + shift).tanh().tanh().tanh()
                )
        assert tap(compiled, "_orig_mod.head.pose").layer == "head.pose"
