"""`alerts:` as people write it, and what is said of what they get wrong."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from dataflow_assets.errors import SpecError
from dataflow_assets.secrets import mask
from dataflow_assets.spec.alerts import bare_address, sender_of
from dataflow_assets.spec.builders import pipeline
from dataflow_assets.spec.builders import project as built_project
from dataflow_assets.spec.json_schema import pipeline_schema, project_schema
from dataflow_assets.spec.load import load

SHOP = """\
project_name: shop
alerts:
  smtp_config: {host: mail.example.org, port: 2525, user: "{{ env_var('U') }}", password: "${P}", use_tls: false, from_email: "D <d@x.org>"}
  channels:
    mail: {type: email, to: ops@example.org, tls: ssl, port: "${PORT}"}
    chat: {type: slack, webhook_url: "https://hooks.example.org/services/T0/B0/plantedsecretpath"}
    pager: {type: webhook, url: "{{ env_var('PAGER') }}", headers: {X-Key: "{{ env_var('K') }}"}, secret: "${S}", body: {service: shop}}
  default: chat
  duration_multiplier_threshold: 3
  status: running
"""


def test_what_may_be_written(folder):
    folder.write("dataflow_project.yml", SHOP)
    alerts = load(folder.root).model.alerts
    assert (alerts.smtp.security, alerts.smtp.port, alerts.duration_multiplier, alerts.default) == ("none", 2525, 3.0, ["chat"])
    assert [type(channel).__name__ for channel in alerts.channels.values()] == ["EmailChannel", "SlackChannel", "WebhookChannel"]
    assert sender_of(alerts.channels["mail"], alerts.smtp) == "D <d@x.org>"
    assert "plantedsecretpath" not in repr(alerts)
    assert "plantedsecretpath" not in mask("POST https://hooks.example.org/services/T0/B0/plantedsecretpath failed")
    jsonschema.validate(yaml.safe_load(SHOP), project_schema())
    built = built_project("shop", root=folder.root, **{key: value for key, value in yaml.safe_load(SHOP).items() if key == "alerts"})
    assert built.model.alerts == alerts


@pytest.mark.parametrize(
    ("alerts", "place", "message"),
    [
        ("channels: {c: {type: slack, webhook_urll: x}}", "2:31", "did you mean 'webhook_url'"),
        ("channels: {c: {type: slack, url: ftp://x}}", "2:36", "this is not a URL"),
        ("channels: {c: {type: mattermost}}", "2:17", "'mattermost' is none of 'email', 'slack', 'webhook'"),
        ("channels: {c: {to: a@b}}", "2:17", "needs the key 'type'"),
        ("channels: {c: {type: email, to: ann, from: a@b}}", "2:35", "'ann' is not an e-mail address"),
        ('channels: {c: {type: email, to: "a@b\\r\\nBcc: c@d", from: a@b}}', "2:35", "is not an e-mail address"),
        ("channels: {c: {type: email, to: a@b}}", "2:3", "'c' does not say whom its messages are from"),
        ('channels: {c: {type: webhook, url: "http://h", headers: {"A\\r\\nB": x}}}', "2:59", "is not the name of a header"),
        ("channels: {c: {type: email, to: a@b, from: a@b, port: 99999}}", "2:57", "99999 is not a port"),
        ("channels: {'a b': {type: slack, url: 'http://h'}}", "2:13", "'a b' is not the name of a channel"),
        ("default: [opps]", "2:3", "there is no channel 'opps'; there are: none"),
        ("events: [failures]", "2:12", "did you mean 'failure'"),
        ("repeat_after: soon", "2:17", "'soon' is not a duration"),
        ("check_every: 1s", "2:16", "less than 5s"),
        ("duration_multiplier: 1", "2:24", "greater than 1"),
        ("owners: true", "2:3", "owners are written to"),
    ],
)
def test_each_mistake_has_its_place_and_says_what_to_do(folder, alerts, place, message):
    folder.write("dataflow_project.yml", f"alerts:\n  {alerts}\n")
    with pytest.raises(SpecError) as raised:
        load(folder.root)
    assert f"dataflow_project.yml:{place}" in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("written", ["chat", "[chat, pager]", "false", "true", "{channels: chat, events: [gap], notify_email: a@b.org}"])
def test_short_forms_of_a_pipeline(folder, written):
    text = f"pipeline_name: p\nalerts: {written}\nsteps: []\n"
    folder.write("pipelines/p.yml", text)
    project = load(folder.root)
    assert not project.failures
    jsonschema.validate(yaml.safe_load(text), pipeline_schema())
    alerts = project.pipelines[0].model.alerts
    channels = {"chat": ["chat"], "[chat, pager]": ["chat", "pager"], "false": [], "true": None}
    assert alerts.channels == channels.get(written, ["chat"])


def test_the_same_in_python():
    assert pipeline("p", steps=[], alerts=["chat"]).model.alerts.channels == ["chat"]
    assert pipeline("p", steps=[], alerts=False).model.alerts.channels == []
    assert pipeline("p", steps=[], alerts={"owners": True, "duration_multiplier_threshold": 3}).model.alerts.duration_multiplier == 3.0
    with pytest.raises(SpecError, match="did you mean 'channels'") as raised:
        pipeline("p", steps=[], alerts={"chanels": ["chat"]})
    assert "test_alerts.py:" in str(raised.value)


@pytest.mark.parametrize(("text", "address"), [("a@b.org", "a@b.org"), ("Änn <a@b>", "a@b"), (" a@b ", "a@b")])
def test_addresses(text, address):
    assert bare_address(text) == address


@pytest.mark.parametrize("text", ["a", "a@", "@b", "a@b, c@d", "a@b\nTo: c@d", "a <b> <c@d>", "a b@c"])
def test_no_addresses(text):
    with pytest.raises(ValueError, match="is not an e-mail address"):
        bare_address(text)
