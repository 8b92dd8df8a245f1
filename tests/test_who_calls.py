"""Who calls over HTTP: tokens, OAuth, actors, hosts and origins, and the limits of each subject."""

import logging
import os
import select
import socket
import stat
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from agent_mcp.config import Settings
from agent_mcp.errors import InvalidArgument
from agent_mcp.http.identify import Rate
from agent_mcp.letting_in import check_address
from agent_mcp.token_file import TokenFile
from issuer import Issuer, issuing
from life import shell
from web import DEADLINE, Web, serving


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    made = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    made.add(name="first", subject="somebody")
    return made


@pytest.fixture(scope="module")
def web(file: TokenFile, tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    with serving(
        tmp_path_factory.mktemp("who") / "data", tokens=file.path, allowed_origins=("https://app.example",)
    ) as web:
        yield web


def test_without_a_token_only_health_and_the_document_of_the_calls_are_seen(web: Web) -> None:
    for method, path in (("GET", "/api/v1/sessions"), ("POST", "/mcp"), ("GET", "/nothing")):
        answer = web.rest.request(method, path)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert_problem(web.rest.get("/api/v1/sessions", headers=bearer("amt_wrong")), 401, "unauthorized")
    assert web.rest.get("/healthz").status_code == 200
    assert web.rest.get("/openapi.json").status_code == 200


def test_a_revoked_token_ends_with_the_next_request(web: Web, file: TokenFile) -> None:
    token = file.add(name="brief", subject="brief")
    assert web.rest.get("/api/v1/sessions", headers=bearer(token)).status_code == 200
    file.revoke("brief")
    assert_problem(web.rest.get("/api/v1/sessions", headers=bearer(token)), 401, "unauthorized")


def test_a_token_acts_for_its_subject_and_for_whom_its_patterns_cover(web: Web, file: TokenFile) -> None:
    token = file.add(name="acme", subject="acme", act_as=["acme:*"])

    def ask(actor: str | None) -> httpx.Response:
        return web.post("/agents/assistant/invoke", {"prompt": "Hello", "actor_id": actor}, headers=bearer(token))

    assert ask(None).json()["actor_id"] == "acme"
    assert ask("acme:one").json()["actor_id"] == "acme:one"
    assert_problem(ask("other"), 403, "forbidden")


def test_a_token_file_that_cannot_be_read_lets_nobody_in_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    token = file.add(name="one", subject="one")
    with serving(tmp_path / "data", tokens=file.path) as web:
        assert web.rest.get("/api/v1/sessions", headers=bearer(token)).status_code == 200
        whole = file.path.read_text("utf-8")
        file.path.write_text(whole + "\n[[token", "utf-8")
        assert_problem(web.rest.get("/api/v1/sessions", headers=bearer(token)), 401, "unauthorized")
        assert "nobody is let in" in caplog.text
        file.path.write_text(whole, "utf-8")
        assert web.rest.get("/api/v1/sessions", headers=bearer(token)).status_code == 200


def test_neither_tokens_nor_words_come_into_the_log(
    web: Web, file: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = file.add(name="quiet", subject="quiet")
    web.post("/agents/assistant/invoke", {"prompt": "My name is Xanthippe"}, headers=bearer(token))
    web.rest.get("/api/v1/sessions?query=Xanthippe", headers=bearer(token))
    web.rest.get("/api/v1/sessions?query=Xanthippe", headers=bearer("amt_wrong_but_secret"))
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))
    assert "GET /api/v1/sessions 200" in ours
    for secret in (token, token[4:], "Xanthippe", "amt_wrong_but_secret"):
        assert secret not in ours


def test_pages_of_other_origins_and_other_hosts_are_refused(web: Web, file: TokenFile) -> None:
    token = bearer(file.add(name="pages", subject="pages"))
    url = "/api/v1/sessions"
    assert_problem(web.rest.get(url, headers={**token, "Origin": "https://evil.example"}), 403, "forbidden")
    assert_problem(web.rest.get(url, headers={**token, "Host": "evil.example"}), 403, "forbidden")
    allowed = web.rest.get(url, headers={**token, "Origin": "https://app.example"})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert web.rest.options(url, headers=asked).status_code == 200


def test_a_subject_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    busy, calm = (bearer(file.add(name=name, subject=name)) for name in ("busy", "calm"))
    with serving(tmp_path / "data", tokens=file.path, subject_rate=1) as web:
        answers = [web.rest.get("/api/v1/agents", headers=busy) for _ in range(3)]
        late = next(answer for answer in answers if answer.status_code != 200)
        assert_problem(late, 429, "rate_limited")
        assert 1 <= int(late.headers["retry-after"]) <= 60
        assert web.rest.get("/api/v1/agents", headers=calm).status_code == 200


def test_the_rate_fills_up_again_with_time() -> None:
    rate = Rate(60)
    for _ in range(60):
        rate.take("one", now=0.0)
    with pytest.raises(Exception, match="60 requests a minute"):
        rate.take("one", now=0.5)
    rate.take("one", now=1.5)
    rate.take("another", now=1.5)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_address_that_others_reach_needs_somebody_who_authenticates(host: str, tmp_path: Path) -> None:
    bare = Settings(data_dir=tmp_path)
    with pytest.raises(InvalidArgument, match="AGENT_MCP_TOKENS"):
        check_address(bare, host, loopback=False)
    check_address(bare, "127.0.0.1", loopback=True)
    for more in ({"tokens": tmp_path / "tokens.toml"}, {"trust_platform": True}):
        check_address(bare.model_copy(update=more), host, loopback=False)
    with pytest.raises(InvalidArgument, match="OAUTH_AUDIENCE"):
        check_address(bare.model_copy(update={"oauth_issuer": "https://issuer.example"}), host, loopback=False)


async def test_the_shell_edits_the_file_and_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    env = {"AGENT_MCP_TOKENS": str(tmp_path / "tokens.toml")}
    added = await shell(tmp_path / "data", "token", "add", "alice", "--act-as", "acme:*", "--scope", "metrics", env=env)
    assert added.out.startswith("amt_"), added.err
    path = tmp_path / "tokens.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert added.out.strip() not in path.read_text("utf-8")
    path.write_text("# from the operator\n" + path.read_text("utf-8"), "utf-8")
    listed = await shell(tmp_path / "data", "token", "list", "--json", env=env)
    assert listed.json[0] | {"created": ""} == {
        "name": "alice",
        "subject": "alice",
        "act_as": ["acme:*"],
        "scopes": ["metrics"],
        "created": "",
    }
    second = await shell(tmp_path / "data", "token", "add", "bob", "--json", env=env)
    assert second.json | {"token": ""} == {"name": "bob", "subject": "bob", "token": ""}
    assert TokenFile(path).find(second.json["token"]) is not None
    gone = await shell(tmp_path / "data", "token", "revoke", "bob", "--json", env=env)
    assert gone.json == {"name": "bob", "revoked": True}
    assert (await shell(tmp_path / "data", "token", "revoke", "alice", env=env)).code == 0
    assert "# from the operator" in path.read_text("utf-8")
    assert "[invalid_argument]" in (await shell(tmp_path / "data", "token", "revoke", "alice", env=env)).err


async def test_doctor_names_what_is_risky_about_who_is_let_in(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    file.add(name="everybody", subject="somebody", act_as=["*"])
    file.path.chmod(0o644)
    env = {"AGENT_MCP_TOKENS": str(file.path), "AGENT_MCP_TRUST_PLATFORM": "yes"}
    done = await shell(tmp_path / "data", "doctor", env=env)
    assert done.code == 1
    for risk in ("chmod 600", "'everybody' may act for every actor", "AGENT_MCP_TRUST_PLATFORM=yes"):
        assert risk in done.out


@pytest.fixture(scope="module")
def issuer() -> Generator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def oauth(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    data = tmp_path_factory.mktemp("oauth") / "data"
    with serving(data, oauth_issuer=issuer.url, oauth_audience="agents") as web:
        yield web


def test_a_client_finds_the_issuer_and_comes_in_with_its_token(oauth: Web, issuer: Issuer) -> None:
    refused = oauth.rest.get("/api/v1/sessions")
    assert_problem(refused, 401, "unauthorized")
    where = refused.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
    metadata = oauth.rest.get(where).json()
    assert metadata["resource"] == f"{oauth.url}/mcp"
    assert metadata["authorization_servers"] == [issuer.url]
    said = oauth.post("/agents/assistant/invoke", {"prompt": "Hello"}, headers=bearer(issuer.token("user-1")))
    assert said.json()["actor_id"] == "user-1"


def test_two_users_of_an_issuer_do_not_meet(oauth: Web, issuer: Issuer) -> None:
    one, two = bearer(issuer.token("one")), bearer(issuer.token("two"))
    session = oauth.post("/agents/assistant/invoke", {"prompt": "Hello"}, headers=one).json()["session_id"]
    assert oauth.rest.get(f"/api/v1/sessions/{session}", headers=one).status_code == 200
    assert_problem(oauth.rest.get(f"/api/v1/sessions/{session}", headers=two), 404, "session_not_found")


def test_a_token_that_is_not_right_in_every_point_is_refused(oauth: Web, issuer: Issuer) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    wrong = {
        "another's signature": issuer.token("user", key=stranger),
        "another audience": issuer.token("user", aud="others"),
        "no audience": issuer.token("user", aud=None),
        "another issuer": issuer.token("user", iss="https://other.example"),
        "expired": issuer.token("user", exp=int(time.time()) - 60),
        "without an end": issuer.token("user", exp=None),
        "not yet valid": issuer.token("user", nbf=int(time.time()) + 600),
        "a symmetric algorithm": issuer.token("user", key="k" * 64, algorithm="HS256"),
        "no signature": jwt.encode({"sub": "user"}, "", algorithm="none"),
        "no token": "abc.def.ghi",
    }
    for what, token in wrong.items():
        assert oauth.rest.get("/api/v1/sessions", headers=bearer(token)).status_code == 401, what


def test_unknown_keys_do_not_make_the_issuer_be_asked_again_and_again(oauth: Web, issuer: Issuer) -> None:
    oauth.rest.get("/api/v1/sessions", headers=bearer(issuer.token("user")))
    before = issuer.asked.count("/keys")
    for number in range(20):
        oauth.rest.get("/api/v1/sessions", headers=bearer(issuer.token("user", kid=f"unknown-{number}")))
    assert issuer.asked.count("/keys") <= before + 2


def test_an_issuers_user_is_nobody_of_the_token_file_though_both_have_one_name(issuer: Issuer, tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    ours, theirs = bearer(file.add(name="user-1", subject="user-1")), bearer(issuer.token("user-1"))
    with serving(tmp_path / "data", tokens=file.path, oauth_issuer=issuer.url, oauth_audience="agents") as web:
        for headers, name in ((ours, "Ann"), (theirs, "Bob")):
            body = {"prompt": f"My name is {name}", "session_id": "notes"}
            said = web.post("/agents/assistant/invoke", body, headers=headers)
            assert (said.json()["actor_id"], said.json()["new_session"]) == ("user-1", True)
        for headers, name, other in ((ours, "Ann", "Bob"), (theirs, "Bob", "Ann")):
            found = web.rest.get("/api/v1/sessions/notes/messages", headers=headers).text
            assert name in found
            assert other not in found


@pytest.mark.parametrize("lie", ["another issuer", "keys elsewhere", "keys over http", "moved keys"])
def test_keys_are_taken_only_from_where_the_issuer_itself_says_that_they_are(lie: str, tmp_path: Path) -> None:
    with issuing() as issuer, issuing() as other:
        if lie == "another issuer":
            issuer.said["issuer"] = other.url
        elif lie == "keys elsewhere":
            issuer.said["jwks_uri"] = f"{other.url}/keys"
        elif lie == "keys over http":
            issuer.said["jwks_uri"] = f"{issuer.url.replace('127.0.0.1', '0.0.0.0')}/keys"  # here, under no name of it
        else:
            issuer.moved["/keys"] = f"{other.url}/keys"
        with serving(tmp_path / "data", oauth_issuer=issuer.url, oauth_audience="agents") as web:
            signed = issuer.token("user", key=other.key)
            status = web.rest.get("/api/v1/sessions", headers=bearer(signed)).status_code
            mine = web.rest.get("/api/v1/sessions", headers=bearer(issuer.token("user"))).status_code
        # Where its keys lie is the issuer's to say, in its own name and over a way that nobody can change.
        assert (status, mine) == ((200, 401) if lie == "keys elsewhere" else (401, 401))
        assert ("/keys" in other.asked) == (lie == "keys elsewhere")


def test_a_body_without_end_is_not_read_to_its_end(web: Web, file: TokenFile) -> None:
    token = file.add(name="endless", subject="endless")
    host, port = web.url.removeprefix("http://").split(":")
    head = (
        f"POST /api/v1/sessions HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as told:
        told.sendall(f"{head}Content-Length: 10000000000\r\n\r\n".encode())
        assert told.recv(12) == b"HTTP/1.1 413"
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as untold:
        untold.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        left = 500
        while left and not select.select([untold], [], [], 0)[0]:
            with suppress(ConnectionError):
                untold.sendall(piece)
            left -= 1
        assert left, "32 MiB were read"
        assert untold.recv(12) == b"HTTP/1.1 413"


def test_the_operators_agents_are_everybodys_to_ask_and_nobodys_to_change(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "guide.md").write_text("---\nname: Guide\n---\nYou show the way.\n")
    file = TokenFile(tmp_path / "tokens.toml")
    one, two = (bearer(file.add(name=name, subject=name)) for name in ("one", "two"))
    with serving(tmp_path / "data", tokens=file.path, agents_path=(shared,)) as web:
        guide = "/api/v1/agents/guide"
        for headers in (one, two):
            assert web.rest.get(guide, headers=headers).json()["system_prompt"] == "You show the way."
            asked = web.post("/agents/guide/invoke", {"prompt": "Hello"}, headers=headers)
            assert asked.json()["agent_id"] == "guide"
        changed = web.rest.patch(guide, json={"system_prompt": "You lead astray."}, headers=one)
        deleted = web.rest.delete(guide, headers=one)
        assert not changed.is_success or changed.json()["source"] == "own", changed.text
        assert web.rest.get(guide, headers=two).json()["system_prompt"] == "You show the way."
        assert [path.name for path in shared.iterdir()] == ["guide.md"]
        assert (shared / "guide.md").read_text() == "---\nname: Guide\n---\nYou show the way.\n", deleted.text


def test_a_slash_at_the_end_sends_nobody_to_another_url(web: Web, file: TokenFile) -> None:
    token = bearer(file.add(name="slash", subject="slash"))
    assert web.rest.get("/api/v1/agents", headers=token).status_code == 200
    for path in ("/api/v1/agents/", "/mcp/"):
        answer = web.rest.get(path, headers=token)
        assert "location" not in answer.headers
        assert_problem(answer, 404, "not_found")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_stays_the_servers_users(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    file.add(name="one", subject="one")
    os.chown(file.path, 12345, 12345)
    file.add(name="two", subject="two")
    assert (file.path.stat().st_uid, stat.S_IMODE(file.path.stat().st_mode)) == (12345, 0o600)


def test_a_token_that_is_revoked_through_a_link_is_revoked_where_it_leads(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    token = file.add(name="one", subject="one")
    link = tmp_path / "link.toml"
    link.symlink_to(file.path)
    TokenFile(link).revoke("one")
    assert file.find(token) is None
    assert link.is_symlink()
