from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle import Objective
from treadle.engine.terms import Term
from treadle.errors import UsageError
from treadle.gans.image_losses import l1, l2, laplacian, sobel
from treadle.gans.specs import build_objective, parse_objective, register_spec, spec_terms

PIX2PIX = {
    "basic": {"G_GAN": 1, "G_L1": 100, "D_real": 0.5, "D_fake": 0.5},
    "extended": {
        "G_GAN": 1, "G_L1": 100, "D_real": 0.5, "D_fake": 0.5, "G_L2": 25, "G_SOBEL": 3, "G_LAP": 1,
    },
    "vgg": {"G_VGG": 10},
    "r1": {"D_R1": 5},
    "gp": {"D_GP": 5},
    "coarse": {"G_COARSE": 25},
    "lattice": {"G_LATTICE": 4},
}  # fmt: skip


def weights(objective):
    return {name: objective.weight(name) for name in objective.terms}


def test_pix2pix():
    for name, expected in PIX2PIX.items():
        assert {term.name: term.weight for term in spec_terms("pix2pix", [name])} == expected
    assert weights(build_objective("basic")) == PIX2PIX["basic"]
    assert weights(build_objective("extended+r1+gp")) == PIX2PIX["extended"] | PIX2PIX["r1"] | PIX2PIX["gp"]
    functions = {term.name: term.function for term in spec_terms("pix2pix", ["extended"]) if term.function}
    assert functions == {"G_L1": l1, "G_L2": l2, "G_SOBEL": sobel, "G_LAP": laplacian}


def test_cyclegan():
    objective = build_objective("basic", "cyclegan")
    expected = {"G_GAN_AB": 1, "G_GAN_BA": 1, "D_A_real": 0.5, "D_A_fake": 0.5, "D_B_real": 0.5, "D_B_fake": 0.5}
    expected |= {"G_CYCLE_A": 10, "G_CYCLE_B": 10, "G_IDENTITY_A": 5, "G_IDENTITY_B": 5}
    assert weights(objective) == expected
    assert {name for name, term in objective.terms.items() if term.function is l1} == {
        name for name in expected if "CYCLE" in name or "IDENTITY" in name
    }


@pytest.mark.parametrize("spec", ["pix2pix", "cyclegan"])
def test_tags_follow_names(spec):
    for sub in PIX2PIX if spec == "pix2pix" else ["basic"]:
        for term in spec_terms(spec, [sub]):
            assert term.tags == (("generator",) if term.name.startswith("G_") else ("discriminator",))


def test_the_generators_terms_are_weighed_and_summed():
    torch.manual_seed(0)
    fake, target = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    pair = (fake, target)
    losses = build_objective("extended")(G_GAN=torch.tensor(0.7), G_L1=pair, G_L2=pair, G_SOBEL=pair, G_LAP=pair)
    expected = 0.7 + 100 * l1(*pair) + 25 * l2(*pair) + 3 * sobel(*pair) + laplacian(*pair)
    torch.testing.assert_close(losses.total, expected)


def test_the_pull_of_l2_never_exceeds_that_of_l1():
    fake = torch.linspace(-1, 1, 41).requires_grad_()
    target = -torch.ones(41)
    pull = torch.autograd.grad(25 * l2(fake, target), fake)[0] / torch.autograd.grad(100 * l1(fake, target), fake)[0]
    assert pull[1:].max().item() == pytest.approx(1)


@settings(deadline=None)
@given(
    names=st.lists(st.sampled_from(["coarse", "vgg", "r1", "gp"]), unique=True),
    first=st.sampled_from(["basic", "extended"]),
    space=st.sampled_from(["", " "]),
)
def test_objectives_are_sub_specs_joined_by_plus(names, first, space):
    parts = (first, *names)
    assert parse_objective(f"{space}+{space}".join(parts)) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extnded+vgg", r"spec 'pix2pix' has no sub-spec 'extnded'; did you mean 'extended'\?"),
        ("basic+vvg", r"did you mean 'vgg'\?"),
        ("basic,vgg", r"has no sub-spec 'basic,vgg'; did you mean 'basic'\?"),
        ("basic+", r"objective 'basic\+': name sub-specs joined by '\+', such as 'extended\+vgg'"),
        ("", "name sub-specs joined by"),
        ("basic+extended", r"'basic' and 'extended' both have the term 'G_GAN'; leave one out"),
        ("basic+vgg+vgg", r"'vgg' and 'vgg' both have the term 'G_VGG'; leave one out"),
    ],
)
def test_objectives_that_are_none(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_objective(text)
    assert "\n" not in str(caught.value)


def test_an_unknown_spec_and_weights_of_unknown_terms():
    with pytest.raises(UsageError, match=r"no objective spec is named 'pix2pixx'; did you mean 'pix2pix'\?"):
        build_objective("basic", "pix2pixx")
    with pytest.raises(UsageError, match=r"the objective has no term 'G_L1_'; did you mean 'G_L1'\?"):
        build_objective("basic", weights={"G_L1_": 3.0})


def test_weights_and_schedules_replace_those_of_the_spec():
    objective = build_objective("basic", weights={"G_L1": 10.0, "G_GAN": "linear 0 to 1 over 50%"})
    assert objective.weight("G_L1") == 10 and callable(objective.terms["G_GAN"].constant_or_curve())


def test_a_trainers_terms_are_required():
    build_objective("basic", required=("G_GAN", "D_real"))
    with pytest.raises(UsageError, match=r"objective 'r1' has no term 'G_GAN', which .* as in 'basic\+vgg'"):
        build_objective("r1", required=("G_GAN", "D_real"))


def test_vgg_and_its_weights_belong_together(tmp_path):
    with pytest.raises(UsageError, match=r"objective 'basic\+vgg' needs the weights of VGG-19: give vgg_weights"):
        build_objective("basic+vgg")
    with pytest.raises(UsageError, match=r"vgg_weights is given, but objective 'basic' .* '\+vgg'"):
        build_objective("basic", vgg_weights=tmp_path / "vgg19.safetensors")
    with pytest.raises(UsageError, match=r"no file .*vgg19.safetensors"):
        build_objective("basic+vgg", vgg_weights=tmp_path / "vgg19.safetensors")


def test_vgg_computes_its_term(monkeypatch):
    given = []
    monkeypatch.setattr("treadle.gans.specs.Perceptual", lambda path: given.append(path) or (lambda x, y: x.mean()))
    objective = build_objective("extended+vgg", vgg_weights="vgg19.safetensors", weights={"G_VGG": 2.0})
    x = torch.full((1, 3, 4, 4), 0.5)
    assert given == ["vgg19.safetensors"] and objective(G_VGG=(x, x)).total == 1
    assert next(term for term in spec_terms("pix2pix", ["vgg"])).function is None  # the spec itself is as it was


def test_a_spec_of_ones_own_is_used_by_name():
    own = Term("G_OWN", lambda fake, target: (fake - target).abs().max(), weight=7.0, tags=("generator",))
    register_spec("mine", {"plain": (Term("G_GAN"),), "sharp": (own,)})
    objective = build_objective("plain+sharp", "mine", required=("G_GAN",), weights={"G_OWN": 3.0})
    x = torch.zeros(1, 3, 4, 4)
    assert objective(G_GAN=torch.tensor(1.0), G_OWN=(x, x + 0.5)).total == 2.5
    with pytest.raises(UsageError, match=r"spec 'mine' has no sub-spec 'shrp'; did you mean 'sharp'\?"):
        build_objective("plain+shrp", "mine")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: list(spec_terms("pix2pxi", [])), "no objective spec is named 'pix2pxi'; did you mean 'pix2pix'"),
        (lambda: list(spec_terms("pix2pix", ["basik"])), "'pix2pix' has no sub-spec 'basik'; did you mean 'basic'"),
        (lambda: register_spec("pix2pix", {"a": []}), "registered already"),
        (lambda: register_spec("empty", {}), "at least one sub-spec"),
    ],
)
def test_bad_specs_are_named(call, told):
    with pytest.raises(UsageError, match=told):
        call()


def test_the_names_in_the_engine_still_work_and_say_where_they_went():
    with pytest.warns(FutureWarning, match=r"engine\.terms\.register_spec is now treadle\.gans\.specs\.reg") as told:
        from treadle.engine.terms import register_spec as former
    assert [warning.filename for warning in told] == [__file__]
    former("of old", {"plain": [Term("G_GAN")]})
    with pytest.warns(FutureWarning, match=r"treadle\.engine\.terms\.spec_terms is now treadle\.gans\.specs\."):
        from treadle.engine.terms import spec_terms as former
    assert [term.name for term in former({"a": [Term("x")]}, [])] == ["x"]
    with pytest.warns(FutureWarning, match=r"is now treadle.gans.specs.build_objective\(.*'of old'\)") as told:
        assert list(Objective.from_spec("of old").terms) == ["G_GAN"]
    assert [warning.filename for warning in told] == [__file__]
    with pytest.warns(FutureWarning), pytest.raises(UsageError, match="did you mean 'of old'"):
        Objective.from_spec("of oldd")
