import sys

import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.prior.export import VERBS, export_onnx, export_program

INPUTS = {"encode": "theta", "decode": "z", "log_prob": "theta"}
SIZES = [(1, 1), (2, 3), (5, 7), (700, 2), (0, 3), (2, 0)]


def make_prior(context_features=4, num_steps=2, **options):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(
        context_features, joints=3, hidden_features=16, num_steps=num_steps, **options
    )
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for step in prior.flow.steps:
            step.actnorm.initialized.fill_(True)
        prior.flow.steps[0].actnorm.log_scale.add_(1.0)  # rounding grows far beyond the chart
    return prior.eval()


def make_inputs(prior, verb, batch, samples):
    """Inputs of a program, and what the prior itself answers."""
    context = torch.randn(batch, 4) if prior.context_features else None
    leading = (batch, samples) if context is not None else (samples,)
    z = torch.randn(*leading, prior.flow.features)
    posterior = prior(context)
    inputs = {} if context is None else {"context": context}
    with torch.no_grad():
        if verb == "mode":
            return inputs, posterior.mode()
        value = z if verb == "decode" else posterior.decode(z)
        return inputs | {INPUTS[verb]: value}, getattr(posterior, verb)(value)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_exported_program_agrees_with_the_prior(verb, size, programs):
    prior, program = programs[verb]
    inputs, expected = make_inputs(prior, verb, *size)
    torch.testing.assert_close(program(**inputs), expected, atol=2e-5, rtol=2e-5)


@pytest.fixture(scope="module")
def programs():
    prior = make_prior(encoder_features=8)
    return {verb: (prior, export_program(prior, verb).module()) for verb in VERBS}


@pytest.mark.parametrize(
    "options",
    [{"space": "rot6d"}, {"space": "points"}, {"coupling": "affine"}, {"coupling": "spline"},
     {"coupling": "contracting"}, {"coupling": "none"},
     {"preset": "prohmr"}, {"context_features": 0}, {"encoder_features": 8}, {"rest_joints": (2,)}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_every_kind_of_prior(verb, options):
    prior = make_prior(num_steps=1, **options)
    program = export_program(prior, verb).module()
    for size in ((1, 1), (4, 6)):
        inputs, expected = make_inputs(prior, verb, *size)
        torch.testing.assert_close(program(**inputs), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="torch 2.5 saves no program whose batch is open",
)
@pytest.mark.parametrize(
    "verb", ["mode", *(pytest.param(verb, marks=pytest.mark.slow) for verb in VERBS[:3])]
)
def test_a_program_can_be_saved(tmp_path, verb):
    prior = make_prior(encoder_features=8)
    torch.export.save(export_program(prior, verb), tmp_path / "program.pt2")
    again = torch.export.load(tmp_path / "program.pt2").module()
    inputs, expected = make_inputs(prior, verb, 6, 3)
    torch.testing.assert_close(again(**inputs), expected, atol=2e-5, rtol=2e-5)


def test_exported_program_copies_the_weights():
    prior = make_prior().double()
    program = export_program(prior, "mode").module()
    context = torch.randn(2, 4, dtype=torch.float64)
    before = prior.mode(context)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.zero_()
    torch.testing.assert_close(program(context=context), before)


@pytest.mark.parametrize(
    ("options", "verb", "message"),
    [
        ({}, "sample", "verb must be one of"),
        ({"context_features": 0}, "mode", "the mode is a constant"),
        ({"coupling": "affine"}, "mode", "computes its mode by ascent"),
        ({"coupling": "spline"}, "mode", "computes its mode by ascent"),
    ],
)
def test_files_that_are_not_programs(options, verb, message):
    with pytest.raises(ValueError, match=message):
        export_program(make_prior(**options), verb)


# --- ONNX ---


@pytest.fixture(scope="module")
def sessions(made_once):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    prior = make_prior(encoder_features=8)

    def export(folder):
        for verb in VERBS:
            export_onnx(prior, verb, folder / f"{verb}.onnx")

    folder = made_once("onnx", export)
    assert len(list(folder.iterdir())) == len(VERBS)  # weights are inside
    sessions = {
        verb: runtime.InferenceSession(folder / f"{verb}.onnx", providers=["CPUExecutionProvider"])
        for verb in VERBS
    }
    return prior, sessions


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_onnxruntime_agrees_with_the_prior(verb, size, sessions):
    prior, session = sessions[0], sessions[1][verb]
    inputs, expected = make_inputs(prior, verb, *size)
    assert {each.name for each in session.get_inputs()} == set(inputs)
    (answer,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    torch.testing.assert_close(torch.from_numpy(answer), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_onnxruntime_holds_joints_at_rest(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    prior = make_prior(rest_joints=(1,)).freeze()
    export_onnx(prior, "decode", tmp_path / "decode.onnx")
    session = runtime.InferenceSession(tmp_path / "decode.onnx", providers=["CPUExecutionProvider"])
    inputs, expected = make_inputs(prior, "decode", 3, 4)
    (answer,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    torch.testing.assert_close(torch.from_numpy(answer), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_onnx_outputs_are_named(sessions):
    names = {verb: session.get_outputs()[0].name for verb, session in sessions[1].items()}
    assert names == {"encode": "z", "decode": "theta", "log_prob": "log_prob", "mode": "theta"}


def test_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"flowprior\[export\]"):
        export_onnx(make_prior(), "mode", tmp_path / "mode.onnx")


def test_no_such_folder(tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        export_onnx(make_prior(), "mode", tmp_path / "none" / "mode.onnx")
