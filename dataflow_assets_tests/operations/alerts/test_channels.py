"""Each channel against a real server: what arrives, what is refused, and that nothing in a value is taken for markup or a header."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import DataflowError
from dataflow_assets.operations.alerts.channels import ChannelFailed, http, mail_to, open_channel
from dataflow_assets.operations.alerts.channels.email import as_html, as_text, letter_of
from dataflow_assets.operations.alerts.channels.slack import BLOCKS, HEADER, SECTION, escaped, length, payload
from dataflow_assets.operations.alerts.channels.webhook import signature
from dataflow_assets.operations.alerts.messages import Message, digest
from dataflow_assets.operations.alerts.wording import line, text
from dataflow_assets.secrets import mask
from dataflow_assets.spec.alerts import AlertsOptions
from dataflow_assets.spec.models import ProjectModel
from dataflow_assets.spec.project import Places, Project
from dataflow_assets_tests.services.http_server import Answer, served
from dataflow_assets_tests.services.mail import PASSWORD, USER, mail_server

MESSAGE = Message(
    id="shop/orders/failure/0/1",
    event="failure",
    tone="bad",
    project="shop",
    pipeline="orders",
    title="failed: orders.read: größer <b>&amp; *fett* <!channel> <https://evil.example|hier> `x`",
    facts=(("What", "5 > 4 & <script>alert(1)</script> 日本 🎉"), ("Window", "2024-03-01")),
    detail="line 1\n```\nline <3>",
    commands=("dataflow run --select orders --window 2024-03-01",),
    link="https://ui.example.org/runs/1?a=1&b=<2>",
    at=datetime(2024, 3, 1, 6, 30, tzinfo=UTC),
)


def project_with(tmp_path, alerts, **environment):
    return Project(tmp_path, ProjectModel(alerts=AlertsOptions.model_validate(alerts)), Places("p"), environment=environment)


def mail_options(server, **more):
    return {"host": "127.0.0.1", "port": server.port, "from": "Dätaflow <d@example.org>", "ca_file": str(server.certificate), **more}


@pytest.mark.parametrize("tls", ["starttls", "ssl"])
def test_a_letter_over_tls_with_a_login(tmp_path, certificate, tls):
    with mail_server(certificate, tls=tls, login=True) as server:
        smtp = mail_options(server, tls=tls, user=USER, password="{{ env_var('SMTP_PASSWORD') }}", port="${SMTP_PORT}")
        alerts = {"smtp_config": smtp, "channels": {"ops": {"type": "email", "to": ["Ann <ann@example.org>", "bob@example.org"]}}}
        project = project_with(tmp_path, alerts, SMTP_PASSWORD=PASSWORD, SMTP_PORT=str(server.port))
        open_channel(project, "ops").send(MESSAGE)
        open_channel(project, mail_to(["Doe, Ann <ann@example.org>", "owner@example.org"])).send(MESSAGE)
    assert server.encrypted == [True, True]
    assert server.logins == [USER, USER]
    letter, second = server.letters
    assert server.envelopes[0].rcpt_tos == ["ann@example.org", "bob@example.org"]
    assert second["To"] == '"Doe, Ann" <ann@example.org>, owner@example.org'
    assert (letter["From"], letter["To"]) == ("Dätaflow <d@example.org>", "Ann <ann@example.org>, bob@example.org")
    assert letter["Subject"] == f"[shop] {MESSAGE.title}"
    assert letter["Date"] == "Fri, 01 Mar 2024 06:30:00 +0000"
    assert letter["Message-ID"] == letter_of(MESSAGE, sender="d@example.org", to=["Ann <ann@example.org>", "bob@example.org"])["Message-ID"]
    plain, rich = letter.get_body(("plain",)).get_content(), letter.get_body(("html",)).get_content()
    assert "5 > 4 & <script>alert(1)</script> 日本 🎉" in plain
    assert "    dataflow run --select orders --window 2024-03-01" in plain
    assert "<script>" not in rich
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 日本 🎉" in rich
    assert 'href="https://ui.example.org/runs/1?a=1&amp;b=&lt;2&gt;"' in rich
    assert PASSWORD not in str(letter) + mask(f"login with {PASSWORD}")


def test_what_a_mail_server_refuses_is_said_without_the_password(tmp_path, certificate):
    with mail_server(certificate, tls="starttls", login=True) as server:

        def send(**options):
            channel = {"type": "email", "to": "ann@example.org", **mail_options(server, user=USER, password=PASSWORD), **options}
            with pytest.raises(ChannelFailed) as raised:
                open_channel(project_with(tmp_path, {"channels": {"ops": channel}}), "ops").send(MESSAGE)
            assert PASSWORD not in str(raised.value)
            assert "wrong one" not in str(raised.value)
            return str(raised.value), raised.value.transient

        assert send(password="wrong one 1") == ("the mail server answers 535 5.7.8 Authentication credentials invalid", False)
        assert send(ca_file=None)[1] is False
        assert "CERTIFICATE_VERIFY_FAILED" in send(ca_file=None)[0]
        assert "530" in send(tls="none", user=None)[0]
        assert send(to=["ann@example.org", "nobody@example.org"]) == (
            "the mail server refuses nobody@example.org: 550 no such user here",
            False,
        )
        assert len(server.letters) == 1
        assert send(to="nobody@example.org")[1] is False
        server.faults += ["451 busy", "552 too big"]
        assert send() == ("the mail server answers 451 busy", True)
        assert send() == ("the mail server answers 552 too big", False)
        port = server.port
    unreachable = {"type": "email", "to": "a@b.org", "host": "127.0.0.1", "port": port, "from": "d@e.org"}
    with pytest.raises(ChannelFailed, match="no mail could be sent: ConnectionRefusedError") as raised:
        open_channel(project_with(tmp_path, {"channels": {"ops": unreachable}}), "ops").send(MESSAGE)
    assert raised.value.transient


def test_a_letter_that_was_taken_is_sent_however_the_server_says_goodbye(tmp_path, certificate):
    with mail_server(certificate) as server:
        server.goodbye = "421 too many of you"
        channel = {"type": "email", "to": "ann@example.org", **mail_options(server, tls="none")}
        open_channel(project_with(tmp_path, {"channels": {"ops": channel}}), "ops").send(MESSAGE)
    assert len(server.letters) == 1


@pytest.mark.parametrize("title", ["a\udcff\ud83cb", "a\r\nBcc: eve@example.org", "a\nX: y", "a\x00\x1b[31mb\u2028c\u202ed"])
def test_nothing_in_a_value_becomes_a_header(title):
    shown = line(title)
    letter = letter_of(Message("i", "failure", "bad", "shop", "orders", shown), sender="d@e.org", to=["a@b.org"])
    assert letter["Subject"] == f"[shop] {shown}"
    assert letter["Bcc"] is None
    assert letter["X"] is None
    assert bytes(letter)
    assert not set(shown) & set("\r\n\x00\x1b\u2028\u202e\udcff\ud83c")
    with pytest.raises(ValueError, match="address"):
        letter_of(MESSAGE, sender="d@e.org", to=["a@b.org\r\nBcc: eve@example.org"])


def test_slack_gets_blocks_in_which_a_value_is_only_text(tmp_path):
    with served(lambda _: Answer("ok")) as server:
        alerts = {"channels": {"ops": {"type": "slack", "webhook_url": "{{ env_var('HOOK') }}"}}}
        project = project_with(tmp_path, alerts, HOOK=f"{server.url}/services/T0/B0/plantedtoken99")
        channel = open_channel(project, "ops")
        channel.send(MESSAGE)
        server.faults += [
            Answer("invalid_blocks", status=400),
            Answer("no_service", status=404),
            Answer("slow down", 429, {"Retry-After": "30"}),
        ]
        server.faults += [Answer("not ok"), Answer(drop=True), Answer("", 302, {"Location": "/elsewhere"}), Answer("x" * 5000, 500)]
        said = []
        for _ in range(7):
            with pytest.raises(ChannelFailed) as raised:
                channel.send(MESSAGE)
            said.append((str(raised.value)[:60], raised.value.transient))
            assert "plantedtoken99" not in str(raised.value)
    assert said[:4] == [
        ("the address answers 400: invalid_blocks", False),
        ("the address answers 404: no_service", False),
        ("the address answers 429: slow down (asks to wait 30 s)", True),
        ("Slack answers 'not ok'", False),
    ]
    assert [transient for _, transient in said[4:]] == [True, False, True]
    assert [asked.path for asked in server.log] == ["/services/T0/B0/plantedtoken99"] * 8
    sent = json.loads(server.log[0].body)
    shown = json.dumps(sent["blocks"][1:], ensure_ascii=False)
    assert "<!channel>" not in json.dumps(sent["text"])
    assert "<script>" not in shown
    assert "日本 🎉" in shown
    assert sent["blocks"][0]["text"]["type"] == "plain_text"
    assert sent["blocks"][-1]["text"]["text"].startswith("<https://ui.example.org/runs/1?a=1&amp;b=%3C2%3E|")
    assert shown.count("```") == 4


def test_a_webhook_gets_a_signed_document(tmp_path):
    with served(lambda _: Answer({"accepted": True}, 202)) as server:
        channel = {
            "type": "webhook",
            "url": f"{server.url}/hook?key=plantedkey77",
            "headers": {"Authorization": "Bearer ${TOKEN}"},
            "secret": "{{ env_var('SIGNING') }}",
            "body": {"routing": {"service": "shop"}},
        }
        project = project_with(tmp_path, {"channels": {"pager": channel}}, TOKEN="planted-token-5", SIGNING="planted-signing-5")
        open_channel(project, "pager").send(MESSAGE)
        server.faults.append(Answer({"error": "Bearer planted-token-5 is wrong"}, 403))
        with pytest.raises(ChannelFailed, match="answers 403") as raised:
            open_channel(project, "pager").send(MESSAGE)
        assert "planted-token-5" not in str(raised.value)
    asked = server.log[0]
    assert asked.headers["authorization"] == "Bearer planted-token-5"
    assert asked.headers["idempotency-key"] == MESSAGE.id
    assert asked.headers["x-dataflow-signature"] == signature(asked.body, "planted-signing-5")
    assert signature(b"what do ya want for nothing?", "Jefe").endswith("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    told = asked.json
    assert (told["version"], told["event"], told["severity"], told["pipeline"]) == (1, "failure", "error", "orders")
    assert (told["routing"], told["next"], told["at"]) == ({"service": "shop"}, list(MESSAGE.commands), "2024-03-01T06:30:00+00:00")
    assert told["facts"]["What"] == MESSAGE.facts[0][1]


def test_a_server_that_does_not_answer_costs_no_more_than_the_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.05)
    with served(lambda _: Answer("ok", delay=0.3)) as server:
        project = project_with(tmp_path, {"channels": {"ops": {"type": "slack", "url": server.url}}})
        with pytest.raises(ChannelFailed, match=r"gives no answer: .*[Tt]ime") as raised:
            open_channel(project, "ops").send(MESSAGE)
    assert raised.value.transient


@pytest.mark.parametrize(
    ("alerts", "message"),
    [
        ({"channels": {"ops": {"type": "slack", "url": "${HOOK}"}}}, r"channel 'ops': .*this is not a URL"),
        ({"channels": {"ops": {"type": "email", "to": "${HOOK}", "from": "a@b"}}}, r"channel 'ops': to: .*is not an e-mail address"),
        ({}, "the project has no channel 'ops'"),
    ],
)
def test_values_that_cannot_be_used_are_said_when_the_channel_is_opened(tmp_path, alerts, message):
    with pytest.raises(DataflowError, match=message):
        open_channel(project_with(tmp_path, alerts, HOOK="nonsense"), "ops")


def test_names_are_not_torn_in_slack():
    assert escaped("amount_range of a*b is ~ok~ & <fine>") == "amount_range of a*b is \u200b~\u200bok\u200b~\u200b &amp; &lt;fine&gt;"


WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=100) | st.sampled_from(
    ["`" * 3000, "\N{LARGE RED CIRCLE}" * 2000, "&" * 3000, "<" * 200, "*_~" * 99]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(1, 60))
def test_any_text_fits_the_limits_of_slack_and_survives_a_letter(words, many):
    facts = tuple((line(word, longest=40), line(word)) for word in words)
    message = Message("i", "failure", "bad", line(words[0], longest=30), "p", line(words[-1]), facts, text("\n".join(words) * many))
    for told in (message, digest([message] * many)):
        found = payload(told)
        assert len(found["blocks"]) <= BLOCKS
        assert length(found["text"]) <= 4000
        for block in found["blocks"]:
            shown = block["text"]["text"]
            assert 0 < length(shown) <= (HEADER if block["type"] == "header" else SECTION)
            if block["type"] != "header":
                assert "<" not in shown
                assert shown.count("```") in {0, 2}
        letter = letter_of(told, sender="d@e.org", to=["a@b.org"])
        assert letter["Bcc"] is None
        assert bytes(letter)
        assert as_text(told)
        assert as_html(told).count("<h3 ") == 1
