"""Domains are found by config and by report; a plugin's is one of them once it is registered."""

import json

import pytest

import msgm
from msgm import domains
from msgm.errors import UserError
from msgm.settings import domain_of
from msgm.study.client import Client
from msgm.study.judging import SCHEMA


class Toy(Client):
    name, kind, options = "toy", "toy", ()

    def load(self, source, overrides=()):
        return None

    def compare(self, config, out=None, **options):
        return None

    def card(self, report, row):
        return None

    def write_views(self, run, report):
        return None

    def print_report(self, report):
        return None


@pytest.mark.parametrize("name", ["generator", "classifier", "recommender", "attributes"])
def test_every_domain_is_found_by_its_name_and_by_its_reports(name):
    found = domains.find(name)
    assert found.name == name
    assert domains.of_report({} if found.kind is None else {"kind": found.kind}) is found


def test_a_plugins_domain_is_found_by_its_configs_and_reports(monkeypatch):
    monkeypatch.setattr(domains, "_DOMAINS", dict(domains._DOMAINS))
    toy = domains.register(Toy())
    assert domains.find(domain_of({"domain": "toy", "models": {}})) is toy
    assert domains.of_report({"kind": "toy"}) is toy
    with pytest.raises(UserError, match="no settings to search"):
        toy.tunable(None, None, None, "cpu")


def test_a_name_of_msgms_own_cannot_be_taken_and_an_unknown_one_is_refused():
    with pytest.raises(UserError, match="one of msgm's own"):
        domains.register(type("Other", (Toy,), {"name": "classifier"})())
    with pytest.raises(UserError, match="unknown domain 'clasifier'.*Did you mean 'classifier'"):
        domains.find("clasifier")


def test_other_commands_say_what_a_plugins_config_is_for(tmp_path, cli):
    path = tmp_path / "toy.yaml"
    path.write_text("domain: toy\n")
    done = cli("train", path)
    told = f"msgm: {path} is of the domain toy: its configs are for msgm compare and msgm tune.\n"
    assert (done.code, done.err) == (2, told)


@pytest.mark.parametrize(
    ("config", "override", "instead"),
    [
        ("digits/vp", "methods.x.lr=1", "rows"),
        ("digits/vp", "requests.a.labels=[3]", "request"),
        ("digits/vp", "metrics=[ur]", "evaluation.metrics"),
        ("digits/vp", "options.ur.n=3", "evaluation.options"),
        ("digits/vp", "shares.test=.2", "data.validation and data.test"),
        ("classifier/digits", "rows.x.lr=1", "methods"),
        ("classifier/digits", "request.labels=[3]", "requests"),
        ("recommender/synthetic", "evaluation.metrics=[mia]", "metrics and options"),
        ("classifier/digits", "evaluation.samples=3", "metrics and options"),
    ],
)
def test_a_setting_of_another_domain_is_refused_with_its_name_here(config, override, instead):
    with pytest.raises(UserError, match=f"unknown setting; .* Set {instead} instead"):
        domains.load(config, [override])


@pytest.mark.parametrize(
    ("config", "override", "said"),
    [
        (
            "digits/vp",
            "models.ease.x=3",
            "models: unknown setting; known: name, seed, seeds, retrains, plugins, data, req",
        ),
        ("classifier/digits", "process.name=vp", "process: unknown setting; known: name, seed, split_seed"),
        ("classifier/digits", "models.ease.x=1", "models: unknown setting; known: name, seed, split_seed"),
        (
            "recommender/synthetic",
            "process.name=vp",
            "process: unknown setting; known: name, seed, seeds, plugins, data, s",
        ),
    ],
)
def test_an_override_does_not_change_the_domain_of_a_config(config, override, said):
    for load in (domains.load, lambda source, overrides: msgm.compare(source, overrides=overrides)):
        with pytest.raises(UserError, match=f"^{said}"):
            load(config, [override])


def test_overrides_decide_where_a_config_leaves_the_domain_open():
    assert type(domains.load({}, ["models.ease.x=1"][:0])).__name__ == "Config"
    assert type(domains.load({"name": "mine"}, ["models={}"])).__name__ == "RecommenderConfig"
    assert type(domains.load({"name": "mine"}, ["shares={}"])).__name__ == "ClassifierConfig"
    assert type(domains.load({"process": {"name": "ve"}, "name": "mine"})).__name__ == "Config"


def test_a_report_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"kind": "classifier", "schema": SCHEMA + 1, "rows": [{}]}))
    with pytest.raises(UserError, match="newer version"):
        domains.read_report(path)


def test_the_verbs_of_a_plugins_domain_are_its_own(monkeypatch):
    class Trained(Toy):
        name, verbs = "trained", {"train": ("device",)}

        def train(self, config, out=None, **options):
            return out, options

    monkeypatch.setattr(domains, "_DOMAINS", dict(domains._DOMAINS))
    for client in (Toy(), Trained()):
        domains.register(client)
    assert msgm.train({"domain": "trained"}, "there", device="cpu") == ("there", {"device": "cpu"})
    with pytest.raises(UserError, match="resume is no option of a trained experiment; it has device"):
        msgm.train({"domain": "trained"}, resume=True)
    for verb in (msgm.train, lambda config: msgm.unlearn(config, "there")):
        with pytest.raises(UserError, match="a config of the domain toy is for compare"):
            verb({"domain": "toy"})
