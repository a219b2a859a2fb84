"""Extractors, the weights of networks made elsewhere, and the reference that is kept between runs."""

import sys
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from msgm.digests import file_digest
from msgm.downloads import downloading
from msgm.errors import UserError
from msgm.evaluation.arrays import read_arrays, write_arrays
from msgm.evaluation.extractors import EXTRACTORS, Features, load_features
from msgm.evaluation.reference import Reference
from msgm.evaluation.vision import inception
from msgm.evaluation.vision.classifiers import ClassifierSettings, load_classifier
from msgm.evaluation.vision.clip import import_clip, load_clip
from msgm.evaluation.vision.images import fit, to_rgb
from tests.evaluation.benches import digits_bench, tiny_classifier_state, tiny_clip_state

NAMES = [f"class {k}" for k in range(10)]


@pytest.fixture
def bench():
    return digits_bench()


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(tiny_clip_state(), path)
    return path


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "tiny.pt"
    torch.save(tiny_classifier_state(), path)
    return path


def classifier_settings(path, **others):
    return {"network": "shufflenet_v2_x0_5", "weights": str(path), "classes": NAMES, "size": 32} | others


def test_the_judges_features_lead_to_its_answers_by_its_last_layer(bench):
    items = bench.dataset.items[:300]
    seen = load_features(bench, {"name": "judge"})(items)
    logits = bench.judge.network[-1](seen.features)
    assert torch.equal(logits.argmax(1), bench.judge.votes(items).argmax(1))
    assert torch.allclose(seen.probabilities, logits.softmax(1), atol=1e-6)


def test_pixels_are_the_levels_in_the_middle_of_their_bins(bench):
    seen = load_features(bench, {"name": "pixels"})(bench.dataset.items[:3])
    assert torch.allclose(seen.features, ((bench.dataset.items[:3].float() + 0.5) * 2 / 17 - 1).flatten(1))
    assert seen.probabilities is None


def test_a_bench_loads_an_extractor_once(bench, monkeypatch):
    first = load_features(bench, {"name": "pixels"})
    monkeypatch.setattr(EXTRACTORS.entries["pixels"], "load", lambda *_: pytest.fail("loaded again"))
    assert load_features(bench, {"name": "pixels"}) is first


def test_images_become_coloured_and_take_another_size():
    levels = torch.tensor([[[[0, 16], [8, 4]]]], dtype=torch.uint8)
    rgb = to_rgb(levels, 17)
    assert rgb.shape == (1, 3, 2, 2)
    assert torch.equal(rgb[0, 2], torch.tensor([[0, 1], [0.5, 0.25]]))
    assert fit(torch.rand(2, 3, 10, 14), 5, "bicubic").shape == (2, 3, 5, 5)
    assert torch.equal(fit(rgb, 2, "bilinear"), rgb)
    wide = torch.zeros(1, 3, 4, 8)
    wide[..., 2:6] = 1
    assert fit(wide, 4, "bilinear").min() == 1


def test_clip_is_loaded_exactly_and_agrees_with_its_own_code(bench, clip_file):
    clip = load_clip("ViT-B/32", str(clip_file), "key", "cpu")
    for name, value in clip.network.state_dict().items():
        assert torch.equal(value, tiny_clip_state()[name])
    theirs, preprocess = import_clip().load(str(clip_file), device="cpu")
    theirs.load_state_dict(tiny_clip_state())
    import torchvision

    item = torch.randint(0, 256, (1, 3, 40, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = preprocess(torchvision.transforms.functional.to_pil_image(item[0]))
    expected = theirs.encode_image(image[None]).detach()
    assert torch.allclose(clip.embed_images(to_rgb(item, 256)), expected, atol=0.02 * float(expected.std()))
    tokens = import_clip().tokenize(["a photo of a cat"])
    text = theirs.encode_text(tokens)[0]
    assert torch.allclose(clip.embed_class(["a photo of a cat"]), text / text.norm(), atol=1e-6)


def test_clip_imports_without_setuptools_and_leaves_no_stand_in(monkeypatch):
    for name in [name for name in sys.modules if name == "clip" or name.startswith("clip.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    assert hasattr(import_clip(), "tokenize")
    assert "pkg_resources" not in sys.modules


def test_clip_features_name_their_file_by_checksum(bench, clip_file):
    features = load_features(bench, {"name": "clip", "weights": str(clip_file)})
    assert features.text == f"CLIP of a file, tiny.pt (sha256 {file_digest(clip_file)[:16]})"
    assert features(bench.dataset.items[:2]).features.shape == (2, 32)


def test_a_classifier_of_torchvision_shows_what_its_last_layer_reads(classifier_file):
    import torchvision

    classifier = load_classifier(ClassifierSettings(**classifier_settings(classifier_file)), "key", "cpu")
    rgb = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features, logits = classifier.outputs(rgb)
    theirs = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=10)
    theirs.load_state_dict(tiny_classifier_state())
    with torch.no_grad():
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        assert torch.allclose(logits, theirs.eval()((rgb - mean) / std), atol=1e-5)
        assert torch.allclose(theirs.fc(features), logits, atol=1e-5)


def test_safetensors_and_torch_files_hold_the_same(classifier_file, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "tiny.safetensors"
    save_file(tiny_classifier_state(), path)
    rgb = torch.rand(2, 3, 32, 32)
    one, other = (
        load_classifier(ClassifierSettings(**classifier_settings(p)), "key", "cpu").outputs(rgb)[1]
        for p in (classifier_file, path)
    )
    assert torch.equal(one, other)


class Small(nn.Module):
    """Stands for torch-fidelity's Inception: it asks for 8-bit colour images."""

    def __init__(self, name, layers, feature_extractor_weights_path):
        super().__init__()
        self.asked = (name, layers, feature_extractor_weights_path)

    def forward(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return images.flatten(1).float(), images.flatten(1)[:, :5].float()


def test_torch_fidelity_is_taken_where_it_is_installed(bench, monkeypatch, classifier_file):
    package, module = ModuleType("torch_fidelity"), ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Small
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(inception.importlib.util, "find_spec", lambda name: object())
    features = load_features(bench, {"name": "inception", "weights": str(classifier_file)})
    assert features.text.startswith("torch-fidelity's Inception v3 (TF port), tiny.pt (sha256 ")
    seen = features(bench.dataset.items[:2])
    expected = (bench.dataset.items[:2].float() / 16 * 255).round().expand(-1, 3, -1, -1).flatten(1)
    assert torch.equal(seen.features, expected)
    assert seen.probabilities.shape == (2, 5)


def test_torchvisions_inception_says_that_it_compares_with_nothing_published(bench, monkeypatch, classifier_file):
    small = ClassifierSettings(**classifier_settings(classifier_file))
    monkeypatch.setattr(inception, "_torchvision", lambda path: small)
    features = load_features(
        bench, {"name": "inception", "implementation": "torchvision", "weights": str(classifier_file)}
    )
    assert "FIDs do not compare with published ones" in features.text


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and empty caches."""

    def fail(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("msgm.evaluation.vision.clip.CACHE", tmp_path / "clip")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "url", "place"),
    [
        ({"name": "clip"}, "https://openaipublic.azureedge.net/clip/models/", "clip/ViT-B-32.pt"),
        (
            {"name": "inception", "implementation": "torchvision"},
            "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
            "hub/checkpoints/inception_v3_google-0cc3c7bd.pth",
        ),
        ({"name": "torchvision"}, "https://download.pytorch.org/models/resnet18-", "hub/checkpoints/resnet18-"),
    ],
)
def test_what_cannot_be_fetched_is_named_with_its_address_and_place(bench, offline, settings, url, place):
    for allowed in (False, True):
        with downloading(allowed), pytest.raises(UserError) as error:
            EXTRACTORS.build(settings).check(bench.dataset)
        text = str(error.value)
        assert text.startswith("extractor.weights: cannot fetch the weights")
        assert url in text
        assert str(offline / place) in text
        assert "\n" not in text
        assert ("allow it with --download" in text) != allowed


def test_nothing_is_fetched_unasked_and_what_is_fetched_is_said_first(bench, monkeypatch, tmp_path, capsys):
    fetched = []
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda url, *_, **__: fetched.append(url))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"from download.pytorch.org \(45 MB\) unless you allow it"):
        EXTRACTORS.build({"name": "torchvision"}).check(bench.dataset)
    assert not fetched
    with downloading():
        EXTRACTORS.build({"name": "torchvision"}).check(bench.dataset)
    assert len(fetched) == 1
    assert "fetching the weights resnet18-f37072fd.pth from download.pytorch.org (45 MB)" in capsys.readouterr().out


def test_torch_fidelity_that_is_asked_for_and_missing_is_named(bench, monkeypatch):
    monkeypatch.setattr(inception.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        EXTRACTORS.build({"name": "inception", "implementation": "torch-fidelity"}).check(bench.dataset)


class Unpickled:
    """What a pickle could do."""

    def __reduce__(self):
        return (pytest.fail, ("code of a weights file ran",))


def bad_files(folder):
    torch.save(Unpickled(), folder / "code.pt")
    torch.save({"epoch": 3, "net": tiny_classifier_state()}, folder / "nested.pt")
    torch.save(tiny_classifier_state(7), folder / "seven.pt")
    (folder / "noise.pt").write_bytes(b"no weights")
    (folder / "noise.safetensors").write_bytes(b"no weights")


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("missing.pt", "there is no file"),
        ("code.pt", "cannot read code.pt as a state dict"),
        ("nested.pt", "holds more than a state dict"),
        ("seven.pt", "does not fit torchvision's shufflenet_v2_x0_5 with 10 classes: size mismatch"),
        ("noise.pt", "cannot read noise.pt"),
        ("noise.safetensors", "cannot read noise.safetensors"),
    ],
)
def test_bad_weights_are_refused_in_one_sentence(bench, tmp_path, file, says):
    bad_files(tmp_path)
    settings = classifier_settings(tmp_path / file)
    with pytest.raises(UserError) as error:
        load_features(bench, {"name": "torchvision"} | settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "torchvision", "network": "resnet81"}, "'resnet18'?"),
        ({"name": "torchvision", "weights": "x.pt"}, "list of their classes"),
        ({"name": "torchvision", "mean": [0.5]}, "three numbers"),
        ({"name": "torchvision", "size": 0}, "at least 1"),
        ({"name": "clip", "model": "ViT-B-32"}, "'ViT-B/32'?"),
    ],
)
def test_bad_settings_are_refused(bench, settings, says):
    with pytest.raises(UserError, match=r".") as error:
        EXTRACTORS.build(settings).check(bench.dataset)
    assert says in str(error.value)


def test_weights_of_something_else_are_no_clip(classifier_file):
    with pytest.raises(UserError, match=r"holds no weights of a CLIP"):
        load_clip("ViT-B/32", str(classifier_file), "key", "cpu")


@pytest.mark.parametrize("name", ["clip", "inception", "torchvision"])
def test_what_sees_images_refuses_vectors(name):
    from msgm.data import DATASETS

    vectors = DATASETS.build({"name": "gaussians", "count": 100}).load()
    with pytest.raises(UserError, match=r"reads images, and gaussians holds vectors; take judge or pixels"):
        EXTRACTORS.build({"name": name}).check(vectors)


def counted(bench):
    calls = []

    def see(items):
        calls.append(len(items))
        return items.float().flatten(1), None

    return Features("pixels", "plain", "counted", see), calls


def test_moments_stream_and_are_those_of_the_features(bench, monkeypatch):
    monkeypatch.setattr("msgm.evaluation.extractors.CHUNK", 50)
    features, calls = counted(bench)
    real = Reference.of(bench.split, "test")
    moments = real.moments(bench, features)
    assert max(calls) == 50
    x = bench.dataset.take(real.indices).flatten(1).double()
    assert torch.allclose(moments.covariance, x.T.cov(), rtol=1e-10, atol=1e-10)
    assert moments.n == len(x)


@pytest.mark.parametrize("what", ["moments", "extracted"])
def test_a_reference_is_computed_once_and_kept_by_data_items_and_extractor(what, tmp_path):
    first = digits_bench(folder=tmp_path)
    features, calls = counted(first)
    made = getattr(Reference.of(first.split, "test"), what)(first, features)
    count = len(calls)
    again = getattr(Reference.of(first.split, "test"), what)(digits_bench(folder=tmp_path), features)
    assert len(calls) == count
    one, other = (found.mean if what == "moments" else found.features for found in (made, again))
    assert torch.equal(one, other)
    getattr(Reference.of(first.split, "test", 50), what)(first, features)
    getattr(Reference.of(first.split, "train"), what)(first, features)
    other_judge = Features("pixels", "plain", "another", features.see)
    getattr(Reference.of(first.split, "test"), what)(first, other_judge)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_file_is_made_again(tmp_path):
    bench = digits_bench(folder=tmp_path)
    features, _ = counted(bench)
    made = Reference.of(bench.split, "test").moments(bench, features)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again = Reference.of(bench.split, "test").moments(digits_bench(folder=tmp_path), features)
    assert torch.equal(made.scatter, again.scatter)


def test_arrays_are_read_without_unpickling(tmp_path):
    write_arrays(tmp_path / "a.npz", {"x": np.arange(3), "y": np.array(2.5)})
    found = read_arrays(tmp_path / "a.npz")
    assert found["x"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", x=np.array([Unpickled()], dtype=object))
    assert read_arrays(tmp_path / "b.npz") is None
    assert read_arrays(tmp_path / "none.npz") is None
