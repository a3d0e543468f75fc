"""What is kept out of what is said, and what is left alone."""

from __future__ import annotations

import base64
import time

import pytest

from artifacts import credentials
from artifacts.redaction import STARS, redact

BASIC = base64.b64encode(b"me:hunter2-and-more").decode()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY = "MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MbMWp8Lq6Ph2"

# a text, and what of it nobody may see
SECRETS = [
    *((f"the token {one} was refused", one) for one in (
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "gho_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11ABCDEFG0abcdefghijkl_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456",
        "hf_abcdefghijklmnopqrstuvwx", "hf_AbCdEfGh-IjKlMnOpQrStUv", "api_org_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE",
        "sk-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKL", "sk-proj-Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9",
        "sk-ant-api03-Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9-xyz", "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
        "xoxp-1234-abcd", "xapp-1-A0123-4567-abcdef", "glpat-AbCdEfGhIjKlMnOpQrSt", JWT,
        "AIzaSyA1bcdefghijklmnopqrstuvwxyz012345", "ya29.a0AfH6SMBabcdefghijklmnop", "GOCSPX-abcdefghijklmnopqrstuvwx",
        "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc", "rk_" + "live_4eC39HqLyjWDarjtT1zdp7dc",
        "npm_abcdefghijklmnopqrstuvwxyz0123456789", "pypi-AgEIcHlwaS5vcmcCJDU3OTM1MjliLWIyYTQtNDI1ZC1hOTk1",
        "pnu_abcdefghijklmnopqrstuvwxyz0123456789", "dckr_pat_abcdefghijklmnopqrstuvwxyz0",
        "hvs.CAESIJabcdefghijklmnopqrstuvwxyz", "SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ",
        "123456789:AAabcdefghijklmnopqrstuvwxyzABCDEFG", "dapi0123456789abcdef0123456789abcdef",
        "gsk_abcdefghijklmnopqrstuvwxyz0123456789",
    )),
    ("https://hooks.slack.com/services/T00000000/B00000000/XXXXyyyyZZZZ1111", "B00000000"),
    ("https://discord.com/api/webhooks/1234567890/AbCdEfGh-ij_kl", "AbCdEfGh-ij_kl"),
    (f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n{KEY}\nQ9==\n-----END RSA PRIVATE KEY-----", KEY),
    (f"'-----BEGIN PRIVATE KEY-----\\n{KEY}\\n{KEY}\\nQ9==\\n-----END PRIVATE KEY-----\\n'", KEY),
    (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n{KEY}", KEY),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
    ("AccountName=x;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1==;End=y", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1"),
    # by their names
    ("password=hunter2", "hunter2"), ("PASSWORD=swordfish", "swordfish"), ("passwd: hunter2", "hunter2"),
    ("Password: swordfish", "swordfish"), ("pwd = hunter2!", "hunter2"), ("secret=s3cr3t", "s3cr3t"),
    ("api_key=0123456789abcdef", "0123456789abcdef"), ("apikey: 'abc def ghi'", "def"), ("API-KEY: a1b2c3d4", "a1b2c3d4"),
    ('{"password": "hunter2", "user": "me"}', "hunter2"), ("{'password': b'hunter2'}", "hunter2"),
    ('{\\"password\\": \\"hunter2\\"}', "hunter2"), ("('api_key', 'hunter2')", "hunter2"),
    ("client_secret => 'hunter2'", "hunter2"), ("db_password: str = 'hunter2'", "hunter2"),
    ("PGPASSWORD=hunter2 psql", "hunter2"), ("export MYSQL_PWD=hunter2", "hunter2"), ("connect(password='hunter2')", "hunter2"),
    ("--password hunter2 --user me", "hunter2"), ("--api-key=hunter2", "hunter2"), ("['--password', 'hunter2']", "hunter2"),
    ("curl -u me:hunter2 https://example.org", "hunter2"), ("machine h login me password hunter2", "hunter2"),
    ("<password>hunter2</password>", "hunter2"), ("Server=db;Password=hunter2;Database=x", "hunter2"),
    ("https://h.example/x?token=abc&room=1", "abc"), ("https://h.example/x?a=1&api_key=abc", "abc"),
    ("https://h.example/x?X-Amz-Signature=abcdef", "abcdef"), ("password%3Dhunter2", "hunter2"),
    ("//registry.npmjs.org/:_authToken=0a1b2c3d-0000-4e5f", "0a1b2c3d"), ('{"token": "0123456789abcdef"}', "0123456789abcdef"),
    ("HF_TOKEN=abcdefghi1", "abcdefghi1"), ("access_token: abc123xyz", "abc123xyz"),
    # commands and lines of configuration
    *((text, "sesame") for text in (
        "password = sesame", "PASSWORD = sesame\n", "db.password = sesame # staging", "db_password  =  sesame",
        "passphrase = sesame", "pass = sesame", "ansible_ssh_pass=sesame", "PGPASSWORD=sesame psql", "secret = sesame",
        "aws_secret_access_key = sesameXUtnFEMI", "openai.api_key = sesameabcdef", "ARG TOKEN=sesame1",
        "ENV API_TOKEN sesame1", "setenv WANDB_API_KEY sesameabc", "set -x HF_TOKEN sesameabc", "KAGGLE_KEY=sesame0123",
        "aws configure set aws_secret_access_key sesameXUt", "npm config set //r.example/:_authToken sesame-1",
        "mysql -u root -psesame db", "mysqldump -psesame db", "7z x -psesame a.7z", "zip -P sesame a.zip f", "unzip -Psesame a.zip",
        "docker login -u me -p sesame ghcr.io", "az login -u me -p sesame", "helm registry login r -p sesame",
        "echo sesame | docker login --password-stdin", "gh auth login --with-token <<< sesame12",
        "sshpass -p sesame ssh me@host", "sshpass -psesame ssh me@host", "twine upload -u me -p sesame dist/*",
        "mongosh -u me -p sesame", "redis-cli -h x -a sesame ping", "requirepass sesame", "ldapsearch -D cn=x -w sesame",
        "curl -ume:sesame https://h.example", "curl --user=me:sesame https://h.example", "http -a me:sesame h.example",
        "smbclient //h/x -U me%sesame", "openssl rsa -passin pass:sesame", "kubectl --token=sesame get pods",
        "huggingface-cli login --token sesameabc", "vault login s.sesameabc", "GRANT ALL TO me IDENTIFIED BY 'sesame'",
        "git remote add o https://me:sesame@h.example/a.git", "Authorization: token sesame",
        "machine h login me password sesame", "db.example.org:5432:mydb:me:sesame",
        '{"username":"me","key":"sesame0123456789abcdef"}',
    )),
    # in sentences and in SQL
    *((text, "sesame") for text in (
        "my password is sesame", "my password is sesame, remember it", "my password is sesame12", "The password is 'sesame'",
        "password sesame12", "Password sesame12 was refused", "password for me is sesame12", "using password Sesame!open",
        "api_key sesame12", "API key sesame12", "the api key is AbCdEfGhsesame", "token sesame123456", "secret sesame1",
        "passphrase: my passphrase is sesame", "password (sesame12)", "password of bob@h was sesame12", "PASSWORD sesame12",
        "CREATE USER me IDENTIFIED BY sesame", "create user me identified by 'sesame'", "CREATE USER me PASSWORD 'sesame'",
        "ALTER ROLE me WITH ENCRYPTED PASSWORD 'sesame'", "CREATE LOGIN me WITH PASSWORD = 'sesame'", "PASSWORD('sesame')",
        "SET PASSWORD FOR 'me'@'h' = 'sesame'", "set password for me = password('sesame')", "IDENTIFIED BY PASSWORD 'sesame'",
        'ALTER USER me IDENTIFIED BY "x1y2" REPLACE "sesame"', "IDENTIFIED WITH mysql_native_password AS 'sesame'",
        "IDENTIFIED WITH sha256_password BY 'sesame'",
    )),
    *((text, "4711") for text in (
        "pin is 4711", "my PIN is 4711, remember it", "PIN: 4711", "pin = 471100", "the pin code is 4711", "the passcode was 4711",
        "the password is 47110815", "OTP: 471100", "your verification code is 471100.", "2FA code: 471100", "PIN 4711 was wrong", '{"pin": 4711}', "{'user_pin': '4711'}", "pin is '4711'",
    )),
    *((text, "x-y-z") for text in (
        "the passphrase is x-y-z", "passphrase for backup was x-y-z", "Password is sesame-x-y-z.", "the passcode is x-y-z, he said",
    )),
    *((text, "0123456789abcdef" * 2) for text in (
        "key " + "0123456789abcdef" * 2, "the key is " + "0123456789abcdef" * 2, "with key " + "0123456789abcdef" * 2 + "01234567.",
        "Key: " + "0123456789abcdef" * 2,
    )),
    *((text, "0123456789abcdef") for text in (
        f"wandb login {'0123456789abcdef' * 2}01234567", f"wandb login --relogin {'0123456789abcdef' * 2}01234567",
        f"wandb.login(key='{'0123456789abcdef' * 2}01234567')", f"export WANDB_API_KEY={'0123456789abcdef' * 2}01234567",
    )),
    # headers
    ("headers={'Authorization': 'Bearer 0123456789abcdef', 'Accept': '*/*'}", "0123456789abcdef"),
    ("[(b'authorization', b'Bearer 0123456789abcdef')]", "0123456789abcdef"),
    ("{b'Authorization': b'Token 0123456789abcdef'}", "0123456789abcdef"),
    (f"Authorization: Basic {BASIC}", BASIC), (f"sent Basic {BASIC}", BASIC), (f"proxy-authorization: Basic {BASIC}", BASIC),
    ('Authorization: Digest username="me", realm="x", response="6629fae49393a05397450978507c4ef1"', "6629fae49393"),
    ("authorization: Negotiate YIIJvwYGKwYBBQUCoIIJsz", "YIIJvwYGKwYBBQUCoIIJsz"),
    ("Authorization: AWS4-HMAC-SHA256 Credential=AK/x, Signature=fe5f80f77d5fa3beca038a248ff027", "fe5f80f77d5fa3"),
    ("Authorization: 0123456789abcdef", "0123456789abcdef"), ("X-Api-Key: 0123456789abcdef", "0123456789abcdef"),
    ("PRIVATE-TOKEN: 0123456789abcdef", "0123456789abcdef"), ("got Bearer 0123456789abcdef-x", "0123456789abcdef"),
    ("-H 'Authorization: Bearer abcdefgh'", "abcdefgh"), ("Set-Cookie: session=0123456789abcdef; Path=/", "0123456789"),
    # addresses
    ("https://me:hunter2@mirror.example/api", "hunter2"), ("tcp://me:p@ss/word@10.0.0.5:8786", "word"),
    ("postgresql+asyncpg://me:p/a/s@127.0.0.1:5432/x", "p/a/s"), ("redis://:hunter2@host:6379/0", "hunter2"),
    ("https://hunter2token@github.com/a/b", "hunter2token"), ("https://me:p%40ss%2Fword@host/x", "p%40ss%2Fword"),
    ("next=https%3A%2F%2Fme%3Ahunter2%40host%2F", "hunter2"), ("me:hunter2@db.example.org", "hunter2"),
    ("me:hunter2@10.0.0.5:8786", "hunter2"), ("me:p@ss:w?rd#1@host", None),
]  # fmt: skip

ORDINARY = [
    "https://hub.example/codellama?revision=main: 4,096 tokens, see tasks/hub.py",
    "hf://datasets/codeparrot/github-code@b5661e6b17396364b2bcf8e68977b0d28e1ebd19/data/train-00000-of-01126.parquet",
    "git+https://github.com/a/b@v1.0#egg=b and git@github.com:a/b.git and ssh://git@github.com/a/b",
    "http://127.0.0.1:4200/runs/flow-run/0193a5b2-1111-7c2e-9f0a-aaaaaaaaaaaa at 09:39@home",
    "https://medium.com/@user/a-post and https://host:8080/path@v1 and mailto:me@example.org",
    "repo/image:1.2@sha256:" + "0a" * 32,
    "store/training/" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "max_tokens=256, new_tokens: 64, tokens 4,096, pad_token='<unk>', eos_token_id=2, token_type_ids, 2,787 tokens/s",
    "tokenizer = AutoTokenizer.from_pretrained(folder); token = tokenizer.decode(ids)",
    "def login(user: str, password: str) -> None: self.password = password",
    "password = getpass.getpass(); key = keys[0]; secret = os.environ['SECRET']; api_key=api_key, token=token",
    "password = get_password()\nsecret = vault.read(name)\ntoken = next(stream)\napi_key = settings.key",
    "docker run -p 8080:80 image; mkdir -p a/b; mysql -P 3306 -h db; zip -r a.zip b; grep -u a, pass = 3, pass@1=0.35",
    "docker login -p $PASSWORD; mysql -p; sshpass -e ssh h; --max-new-tokens 256 --pad-token=<unk>; EOS_TOKEN=end",
    "if password is None: raise ValueError('password: not given')",
    "error: secret: none found; password must be set; credentials: missing",
    "key: 5a63f68f7a19, cache_key=9f86d081884c, the key of a stage",
    "Basic authentication is not Bearer of news; authorization is needed",
    "  → set HF_TOKEN to a token with access, or pass --token TOKEN; HF_TOKEN is not set",
    "raise_for_status, hf_raise_for_status, hf_hub_download, sk-learn, scikit-learn, pypi-simple, eyJust",
    "training.lora.target_modules: q_proj → [q_proj, v_proj], because",
    "password_file: /run/secrets/db, secret_name=x, SECRET_LENGTH = 12",
    "✓ training 21.8 s 30 steps, loss 2.152 → 1.873, 2,787 tokens/s, peak 1.1 GiB",
    "User-Agent: codetune/0.1; Accept: */*; a: b@c",
    "the password is wrong; password required: a password of 8 characters; password must have 8-16 characters",
    "my password is not accepted, my password is too short, my password is stored in the keyring; 'the password is wrong'",
    "password authentication failed for user1; password sha256 hash; the password is 'wrong'; password field1 of the form",
    "the api key to use is missing; API key v2; secret management in k8s; set the password to continue in python3.11",
    "the token 32016 is outside of 32,000; token model.layers.0.mlp.q_proj; token ids 1 2 3, token limit 32k, tokens a1b2c3d4e5f6",
    "users are identified by name; IDENTIFIED BY $NAME; PASSWORD FOR users; PASSWORD(length)",
    "pin 1234 to 5.1, pin is 13, PIN_COUNT=1234, the pin is 3.1415 mm, pins: 1234, spin is 1234, error code is 1234, OTP 26",
    "the password is up-to-date, end-to-end encrypted, well-known-to-all; the passphrase is one-of-a-kind and case-sensitive",
    f"stage key {'0a' * 32}, key 5a63f68f7a19, cache key {'0a' * 16}, keys {'0a' * 20}, key={'0a' * 32}",
    'decorated: Foo@Bar, x:int@y, {"a": {"tokens": 12, "key": "0a1b2c3d4e5f60718293"}}',
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_what_looks_like_a_secret_is_stars(text: str, secret: str | None) -> None:
    said = redact(text)
    assert secret is None or (STARS in said and secret not in said)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_output_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_what_stands_around_a_secret_is_kept() -> None:
    text = f"cannot read https://me:hunter2@host/x.git (password=hunter2, user=me); {{'Authorization': 'Bearer {JWT}'}}"
    said = redact(text)
    assert said == (
        f"cannot read https://{STARS}@host/x.git (password={STARS}, user=me); {{'Authorization': '{STARS}'}}"
    )
    assert redact(said) == said


@pytest.mark.parametrize("secret", ["pa ss\"wo'rd/1+2", "sesame@open:thyself", "ünïcode-secret"])
def test_a_secret_of_the_environment_is_found_however_it_is_written(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json
    from urllib.parse import quote, quote_plus

    monkeypatch.setenv("CODETUNE_TEST_SECRET", secret)
    for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret), repr(secret)):
        said = redact(f"it said {form} to me")
        assert STARS in said and secret not in said and said.endswith("to me")


HOSTILE = ["password is ", "password is a-", "passphrase is a-a-a-", "pin is 1", "pin is 1234", "key 0", "access code is 1234", "my password is a1", "token for a1", "identified by 'a", "PASSWORD('", "key to A", "login -p", "mysql -p", "wandb 0", "echo a", ":1234:a:b:", "set a", "pass=", "A_TOKEN", "password", "password='a", "password=", "sk-", "eyJ-", "://a:b", "a:", "-", " ", "&a-", "%3a%2f%2f", "token>a",
           "-----BEGIN PRIVATE KEY-----", "authorization='", "hf_-", "xoxb-1", "0123456789abcdef"]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_redaction_takes_time_in_proportion_to_the_text(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.process_time()
        list(credentials.find(text))
        return time.process_time() - started

    seconds(1000)
    assert seconds(200_000) < 4 + 8 * seconds(50_000)


def test_a_megabyte_of_code_takes_a_moment() -> None:
    text = (credentials.__doc__ or "") + "def work(key: str, tokens: int) -> None:\n    return table[key] + 'abc'\n"
    text *= 1_000_000 // len(text)
    started = time.process_time()
    assert redact(text) == text
    assert time.process_time() - started < 10
