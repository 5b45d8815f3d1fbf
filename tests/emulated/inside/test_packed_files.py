# SPDX-License-Identifier: MIT
"""Models saved with their packed weights, and mapped from files; and the memory that conversion takes."""

import copy
import ctypes
import os
import pickle
import re
import resource
import signal
from pathlib import Path

import pytest
import torch
import torch.ao.quantization as tq
from helpers import refusals_with_short_vectors
from torch import nn

import acl_qlinear


class Model(nn.Module):
    """With tied parameters, a buffer that no state_dict has, an attribute beside it, and layers that stay float."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(40, 24)
        self.body = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24, bias=False), nn.LayerNorm(24))
        self.head, self.other = nn.Linear(24, 40), nn.Linear(24, 40)
        self.head.weight = self.other.weight = self.tokens.weight
        self.register_buffer("positions", torch.randn(6, 24), persistent=False)
        self.first_positions = self.positions

    def forward(self, ids):
        x = self.body(self.tokens(ids) + self.positions + self.first_positions.to(self.positions.dtype))
        return self.head(x) + self.other(x)


IDS = torch.arange(30).reshape(5, 6)
OPTIONS = {
    "dynamic": {},
    "row": {"granularity": "row", "symmetric": True},
    "tensor": {"per_channel": False, "reduce_range": True},
    "static": {"calibrate": lambda model: model(IDS)},
    "smoothed": {"calibrate": lambda model: model(IDS), "smooth": 0.5},
    "fused": {"fuse": True},
}


def on_meta(make):
    with torch.device("meta"):
        return make()


def saved(model, tmp_path):
    path = tmp_path / "model.packed"
    acl_qlinear.save_packed(model, path)
    return path


def mapped(tensor):
    """The file that a tensor's memory is mapped from, or nothing."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return line.split(maxsplit=5)[5] if line.count(" ") > 5 and "/" in line else ""
    return ""


def same_state(model, other):
    left, right = model.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", OPTIONS)
@torch.no_grad()
def test_loaded_models_are_what_was_saved(kind, dtype, tmp_path):
    model = acl_qlinear.quantize(Model().to(dtype).eval(), skip=["other"], **OPTIONS[kind])
    path = saved(model, tmp_path)
    assert os.listdir(tmp_path) == ["model.packed"]
    float_model = Model()
    before = {name: value.clone() for name, value in float_model.state_dict().items()}
    for structure in (
        on_meta(Model).eval(),
        float_model.eval(),
        acl_qlinear.quantize(Model().eval(), skip="other"),
        model,
    ):
        loaded = acl_qlinear.load_packed(structure, path)
        assert torch.equal(loaded(IDS), model(IDS)) and same_state(loaded, model) and not loaded.training
        assert str(acl_qlinear.report(loaded)) == str(acl_qlinear.report(model))
        assert type(loaded.body) is type(model.body) and loaded.head.weight.dtype == dtype
        assert loaded.other.weight is loaded.tokens.weight
        assert loaded.first_positions is loaded.positions or structure is model
        assert loaded.head.packed.data_ptr() % 64 == 0
        for tensor in (loaded.head.packed, loaded.tokens.weight, loaded.positions):
            assert mapped(tensor) == str(path)
    assert all(torch.equal(value, before[name]) for name, value in float_model.state_dict().items())
    # What was loaded can be copied, pickled and saved, also to where it came from.
    acl_qlinear.save_packed(loaded, path)
    for again in (
        acl_qlinear.load_packed(on_meta(Model).eval(), path),
        pickle.loads(pickle.dumps(loaded)),
        copy.deepcopy(loaded),
    ):
        assert torch.equal(again(IDS), model(IDS))
    assert torch.equal(loaded(IDS), model(IDS))


@torch.no_grad()
def test_models_that_are_a_layer_or_have_one_twice(tmp_path):
    x, layer = torch.randn(3, 8), nn.Linear(8, 8)
    for make in (lambda: copy.deepcopy(layer), lambda: nn.Sequential(*[copy.deepcopy(layer)] * 2)):
        model = acl_qlinear.quantize(make())
        loaded = acl_qlinear.load_packed(make().to("meta"), saved(model, tmp_path))
        assert torch.equal(loaded(x), model(x)) and same_state(loaded, model)
    assert loaded[0] is loaded[1]


@torch.no_grad()
def test_graphs(tmp_path):
    model = acl_qlinear.quantize(torch.fx.symbolic_trace(Model().eval()))
    loaded = acl_qlinear.load_packed(torch.fx.symbolic_trace(on_meta(Model).eval()), saved(model, tmp_path))
    assert torch.equal(loaded(IDS), model(IDS)) and same_state(loaded, model)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_models_of_torch_ao(tmp_path):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.fc, self.end = tq.QuantStub(), nn.Linear(16, 16), tq.DeQuantStub()
            self.sum = torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x):
            x = self.start(x)
            return self.end(self.sum.add_relu(self.fc(x), x))

    x = torch.randn(4, 16)
    theirs = Block().eval()
    theirs.qconfig = tq.get_default_qconfig("qnnpack")
    tq.prepare(theirs, inplace=True)(x)
    tq.convert(theirs, inplace=True)
    model = acl_qlinear.convert(theirs)
    path = saved(model, tmp_path)
    for structure in (theirs, model):
        loaded = acl_qlinear.load_packed(structure, path)
        assert torch.equal(loaded(x), model(x)) and same_state(loaded, model)
        assert type(loaded.sum) is type(model.sum) and type(loaded.fc) is acl_qlinear.Linear


@torch.no_grad()
def test_a_mapped_model_can_be_changed_and_its_file_replaced(tmp_path):
    model = acl_qlinear.quantize(Model().eval())
    path = saved(model, tmp_path)
    content = path.read_bytes()
    first = acl_qlinear.load_packed(model, path)
    first.body[3].weight.fill_(2)
    assert path.read_bytes() == content
    acl_qlinear.save_packed(first, path)
    assert torch.equal(acl_qlinear.load_packed(model, path).body[3].weight, first.body[3].weight)
    expected = first(IDS)
    path.unlink()
    assert torch.equal(first(IDS), expected)


def test_other_models_are_refused(tmp_path):
    model = acl_qlinear.quantize(Model().eval())
    path = saved(model, tmp_path)

    def changed(change):
        other = Model()
        change(other)
        return other

    class Kept(Model):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.zeros(3)

    others = {
        "has a linear layer 'head', which model does not have": changed(lambda m: delattr(m, "head")),
        r"has K, N = \(24, 40\) for layer 'head', model has \(24, 41\)": changed(
            lambda m: setattr(m, "head", nn.Linear(24, 41))
        ),
        r"another model than the given one: (.|\n)*Missing key.*more.weight": changed(
            lambda m: setattr(m, "more", nn.Linear(2, 2))
        ),
        r"another model than the given one: (.|\n)*Unexpected key.*body.3.weight": changed(
            lambda m: m.body.__delitem__(3)
        ),
        r"another model than the given one: (.|\n)*size mismatch for tokens.weight": changed(
            lambda m: setattr(m, "tokens", nn.Embedding(41, 24))
        ),
        "has no values for 'table'": on_meta(Kept),
        "has a buffer 'positions', which model does not have": changed(lambda m: delattr(m, "positions")),
    }
    for message, other in others.items():
        with pytest.raises(ValueError, match=message):
            acl_qlinear.load_packed(other, path)
    extra = acl_qlinear.quantize(Model())
    acl_qlinear.save_packed(acl_qlinear.quantize(Model(), skip="head"), path)
    with pytest.raises(ValueError, match="has a float layer 'head', model has it as int8: expected the float model"):
        acl_qlinear.load_packed(extra, path)


def test_models_that_share_otherwise_are_refused(tmp_path):
    """What one has once and the other twice would be wrong in one of the places."""
    x = torch.randn(2, 8)

    def blocks(count, share):
        each = [nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(count)]
        return nn.Sequential(*[each[0]] * count if share else each).eval()

    class Tied(nn.Module):
        def __init__(self, share) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(4, 4)
            if share:
                self.b.weight = self.a.weight

        def forward(self, x):
            return self.fc(self.a(x[0, :3].long().abs()) - 2 * self.b(x[0, :3].long().abs()))

    def layers(share):
        fc = nn.Linear(8, 8)
        return nn.Sequential(fc, fc if share else nn.Linear(8, 8))

    for make in (lambda share: blocks(2, share), layers, Tied):
        shared, apart = (acl_qlinear.quantize(make(share)) for share in (True, False))
        path = saved(apart, tmp_path)
        for structure in (shared, make(True), on_meta(lambda make=make: make(True))):
            with pytest.raises(ValueError, match=r"of its own.*model shares (it|them): it is another model's"):
                acl_qlinear.load_packed(structure, path)
        path = saved(shared, tmp_path)
        for structure in (shared, apart, make(False)):
            with torch.no_grad():
                assert torch.equal(acl_qlinear.load_packed(structure, path)(x), shared(x))


@torch.no_grad()
def test_what_is_attached_to_a_layer(tmp_path):
    """It is kept where the given model has it, and else an error."""
    x = torch.randn(3, 8)
    model = acl_qlinear.quantize(nn.Sequential(nn.Linear(8, 4)).eval())
    model[0].register_buffer("gain", torch.tensor(3.0))
    model[0].lora = nn.Linear(8, 4)
    model[0].register_forward_hook(lambda layer, args, y: y * layer.gain + layer.lora(args[0]))
    path = saved(model, tmp_path)
    loaded = acl_qlinear.load_packed(model, path)
    assert torch.equal(loaded(x), model(x)) and loaded[0].lora.weight is not model[0].lora.weight
    with pytest.raises(ValueError, match=r"another model than the given one: (.|\n)*Unexpected key.*0.gain"):
        acl_qlinear.load_packed(nn.Sequential(nn.Linear(8, 4)), path)
    patched = nn.Sequential(nn.Linear(8, 4))
    patched[0].forward = lambda x: x
    with pytest.raises(ValueError, match="model's layer '0' has another forward, expected the one of its class"):
        acl_qlinear.load_packed(patched, path)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_weights_that_hooks_compute(tmp_path):
    def make():
        return nn.Sequential(nn.Linear(8, 8), nn.utils.weight_norm(nn.Linear(8, 4))).eval()

    x = torch.randn(3, 8)
    model = acl_qlinear.quantize(make(), inplace=True)
    with torch.enable_grad():
        model(x)
    path = saved(model, tmp_path)
    for structure in (model, make()):
        assert torch.equal(acl_qlinear.load_packed(structure, path)(x), model(x))
    with pytest.raises(ValueError, match=r"has no values for '1\.weight': .* neither a parameter nor a buffer"):
        acl_qlinear.load_packed(on_meta(make), path)


def test_files_that_are_no_packed_models_are_refused(tmp_path):
    model = acl_qlinear.quantize(nn.Sequential(nn.Linear(8, 4)))
    whole = saved(model, tmp_path).read_bytes()
    path = tmp_path / "bad"
    expected = "expected a file that acl_qlinear.save_packed of this version wrote"
    for content in (b"", b"no", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=expected):
            acl_qlinear.load_packed(model, path)
    for value in (model.state_dict(), [1], {"format": "acl_qlinear packed model 0"}):
        torch.save(value, path)
        with pytest.raises(ValueError, match=expected):
            acl_qlinear.load_packed(model, path)
    content = torch.load(tmp_path / "model.packed")
    for key in content:
        torch.save({name: value for name, value in content.items() if name != key}, path)
        with pytest.raises(ValueError, match=expected):
            acl_qlinear.load_packed(model, path)
    names, kind, state = content["layers"][0]
    for wrong in ((names, kind), (names, "Linear2", state), (names, "Linear", state), (["0"], kind, state)):
        torch.save({**content, "layers": [wrong]}, path)
        with pytest.raises(ValueError, match=r"it has been changed|bad has been changed: in layer '0', it has"):
            acl_qlinear.load_packed(model, path)
    for key in state:
        for wrong in (None, "a", torch.tensor(1e9), torch.tensor(-7), [1]):
            if not (key == "float_dtype" and wrong is None):
                torch.save({**content, "layers": [(names, kind, {**state, key: wrong})]}, path)
                with pytest.raises(ValueError, match=f"bad (has been changed: in layer '0', {key} is|cannot be used)"):
                    acl_qlinear.load_packed(model, path)
        torch.save({**content, "layers": [(names, kind, {name: state[name] for name in state if name != key})]}, path)
        with pytest.raises(ValueError, match="bad has been changed: in layer '0', it has"):
            acl_qlinear.load_packed(model, path)
    # Nothing runs that a file asks for.
    torch.save({"format": os.system}, path)
    with pytest.raises(ValueError, match=expected):
        acl_qlinear.load_packed(model, path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError, match=re.escape(str(missing))):
            acl_qlinear.load_packed(model, missing)


def test_other_cpus_are_refused(tmp_path):
    model = acl_qlinear.quantize(nn.Sequential(nn.Linear(8, 4)))
    path = saved(model, tmp_path)
    # As a file from a CPU with other vectors: its third number, of 4 bytes, after 8 and 4 others.
    content = torch.load(path)
    packed = content["layers"][0][2]["packed"]
    packed.view(-1)[12:16] = torch.tensor([7, 0, 0, 0], dtype=torch.uint8)
    other = tmp_path / "other"
    torch.save(content, other)
    message = "other cannot be used on this CPU, expected one that .*in layer '0', it was packed for SVE vectors of 7 "
    with pytest.raises(ValueError, match=message):
        acl_qlinear.load_packed(model, other)
    messages, length = refusals_with_short_vectors(lambda: acl_qlinear.load_packed(model, path))
    assert len(messages) == (length is not None) and all("packed for SVE vectors of" in text for text in messages)


def test_models_that_cannot_be_saved(tmp_path):
    class InList(nn.Module):
        def __init__(self, layer) -> None:
            super().__init__()
            self.layers = [layer]

    class Odd(nn.Module):
        def get_extra_state(self):
            return {"a function": print}

    class Derived(acl_qlinear.DynamicLinear):
        pass

    layer = acl_qlinear.quantize(nn.Linear(8, 4))
    derived, patched = copy.deepcopy(layer), copy.deepcopy(layer)
    derived.__class__ = Derived
    patched.forward = lambda x: x
    models = {
        "layer 1 cannot be saved packed: it is a Derived, expected Linear, Dyn": nn.Sequential(layer, derived),
        "layer 1 cannot be saved packed: its forward was replaced by another": nn.Sequential(layer, patched),
        "1.weight is on the meta device, and has no values to save": nn.Sequential(
            layer, on_meta(lambda: nn.Linear(4, 4))
        ),
        "model has no int8 layer, expected one from": nn.Sequential(nn.Linear(8, 4)),
        r"layer layers\[0\] cannot be saved packed: it is kept in layers\[0\]": InList(layer),
        "layer 0 cannot be saved packed: it is on the meta device": nn.Sequential(copy.deepcopy(layer)).to("meta"),
        "layer _orig_mod cannot be saved packed: it is below a compiled module": torch.compile(layer),
        "model's state cannot be loaded again, expected tensors and numbers in it": nn.Sequential(layer, Odd()),
    }
    for message, model in models.items():
        with pytest.raises(ValueError, match=message):
            acl_qlinear.save_packed(model, tmp_path / "model")
    for function in (acl_qlinear.save_packed, acl_qlinear.load_packed):
        with pytest.raises(TypeError, match=r"model is a str, expected a torch\.nn\.Module"):
            function("model", tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        acl_qlinear.save_packed(layer, tmp_path / "nowhere/model")
    assert os.listdir(tmp_path) == []


def test_files_are_whole_or_what_they_were(tmp_path):
    """On a full disk; where the path is a link, its target."""
    model = acl_qlinear.quantize(nn.Sequential(nn.Linear(8, 4)))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    acl_qlinear.save_packed(model, link)
    content = (tmp_path / "target").read_bytes()
    assert link.is_symlink()
    pid = os.fork()
    if pid == 0:
        # No file may be larger, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            acl_qlinear.save_packed(model, link)
        except OSError as error:
            os._exit(not str(error).startswith(f"{link} cannot be written: "))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "target").read_bytes() == content and sorted(os.listdir(tmp_path)) == ["link", "target"]


def megabytes(name):
    """VmRSS: of memory in use; RssAnon: without files'; VmHWM: the most since `forget_peak`."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def forget_peak():
    # What has been freed is not to be used again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def filled(*shapes):
    """Layers of these K, N, with no random numbers, which take long."""
    model = on_meta(lambda: nn.Sequential(*[nn.Linear(*shape) for shape in shapes])).to_empty(device="cpu")
    for value in model.parameters():
        value.data.fill_(0.25)
    return model.eval()


def calibrate(model):
    model(torch.randn(2, model[0].in_features))


@pytest.mark.parametrize("options", [{}, {"calibrate": calibrate, "smooth": 0.5}], ids=["dynamic", "smoothed"])
@torch.no_grad()
def test_conversion_takes_the_memory_of_one_layer(options):
    """4 MB as fp32, 1 as int8, and some for PyTorch. All layers' packed weights would be 48 beside the model."""
    model = filled(*[(1024, 1024)] * 48)
    acl_qlinear.quantize(nn.Sequential(nn.Linear(64, 64)), **options)
    forget_peak()
    before = megabytes("VmRSS")
    acl_qlinear.quantize(model, inplace=True, **options)
    assert megabytes("VmHWM") - before < 24


def test_loading_takes_no_memory(tmp_path):
    model = acl_qlinear.quantize(filled(*[(2048, 2048)] * 4), inplace=True)
    path = saved(model, tmp_path)
    structure = copy.deepcopy(model).to("meta")
    del model
    forget_peak()
    before = megabytes("RssAnon")
    loaded = acl_qlinear.load_packed(structure, path)
    loaded(torch.ones(1, 2048))
    assert megabytes("RssAnon") - before < 4
