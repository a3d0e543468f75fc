"""What looks like a secret in a text: the one list of patterns, for what is said and for what is read.

Tokens that a service marks by a prefix are those of `detect-secrets`, and below them those that it lacks. What has no
form of its own is known by where it stands: behind a name that promises a secret, in an `Authorization` header, before
the `@` of an address.

Everything here takes time in proportion to the text: what is tried at a place is bounded, and patterns of places are
tried only where a word stands that they need.
What is not covered: a secret that stands in a text by itself, looks like any other word, and is in no variable of the
environment (`artifacts.redaction` knows those).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import NamedTuple


class Found(NamedTuple):
    """A stretch of a text that looks like a secret."""

    start: int
    end: int
    kind: str
    """What it looks like, in words: `GitHub token`, `password in an address`."""


def find(text: str) -> Iterator[Found]:
    """Everything that looks like a secret; stretches may overlap."""
    yield from find_tokens(text)
    yield from find_places(text)


def find_tokens(text: str) -> Iterator[Found]:
    """What is known by its own form."""
    for match in _tokens().finditer(text):
        yield Found(*match.span(), _KINDS[match.lastgroup or ""])


def find_places(text: str) -> Iterator[Found]:
    """What is known by where it stands: as told by people, who also write `password: none` there."""
    flat = text.encode("ascii", "replace").lower()  # as long as the text, and quick to search
    for place in _PLACES:
        for anchor in place.anchors:
            at = flat.find(anchor)
            while at >= 0:
                behind = place.after.match(text, at)
                if behind and place.fits(text, at, behind):
                    yield Found(*behind.span("secret"), place.kind)
                at = flat.find(anchor, at + 1)


# --- tokens that are known by their form ----------------------------------------------------------------------

# Left out: those that know a secret only by a name before it, which are below, those that find ordinary words, and
# one that takes time in proportion to the square of the text.
_DETECTORS = (
    "aws:AWSKeyDetector",
    "azure_storage_key:AzureStorageKeyDetector",
    "discord:DiscordBotTokenDetector",
    "github_token:GitHubTokenDetector",
    "gitlab_token:GitLabTokenDetector",
    "mailchimp:MailchimpDetector",
    "pypi_token:PypiTokenDetector",
    "sendgrid:SendGridDetector",
    "slack:SlackDetector",
    "square_oauth:SquareOAuthDetector",
    "stripe:StripeDetector",
    "telegram_token:TelegramBotTokenDetector",
    "twilio:TwilioKeyDetector",
)
# A private key, also one whose end is missing or whose line ends are written `\n`.
_BREAK = r"(?:\s|\\[nr])"
_KEY_HEADER = r"(?:Proc-Type|DEK-Info|Version|Comment):[^\n\\]{0,200}"
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    rf"(?:(?:{_BREAK}|[\"'+,]){{0,80}}+(?:[A-Za-z0-9+/=]{{16,}}+|{_KEY_HEADER}))*+"
    rf"(?:{_BREAK}{{0,80}}+[A-Za-z0-9+/=]{{0,15}}{_BREAK}{{0,80}}-----END [A-Z0-9 ]{{0,40}}-----)?"
)
_MORE = {
    "private key": _PRIVATE_KEY,
    "age key": r"AGE-SECRET-KEY-1[0-9A-Z]{20,}",
    "Hugging Face token": r"hf_(?:[A-Za-z0-9-]{16,}|(?=[\w-]{0,40}?\d)(?=[\w-]{0,40}?[A-Z])[\w-]{20,})"
    r"|api_org_[A-Za-z0-9]{20,}",
    "GitHub token": r"gh[opusr]_[A-Za-z0-9_]{20,}|github_pat_[A-Za-z0-9_]{20,}",
    "GitLab token": r"gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas|ffct)-[\w-]{16,}",
    "AWS key": r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{12,}",
    "Slack token": r"xox[abeoprs](?:[.-][A-Za-z0-9-]{4,})+|xapp-\d-[A-Za-z0-9-]{10,}",
    "webhook's address": r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/+-]+"
    r"|(?:ptb\.|canary\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/[\w/-]+"
    r"|[\w-]{1,80}\.webhook\.office\.com/[\w/@-]+|outlook\.office\.com/webhook/[\w/@-]+",
    "JSON Web Token": r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)*+",
    "Google key": r"AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}",
    "Stripe key": r"[rs]k_(?:live|test|prod)_[0-9A-Za-z]{10,}|whsec_[A-Za-z0-9+/=]{20,}",
    "OpenAI or Anthropic key": r"sk-(?=[\w-]{0,40}?\d)[\w-]{20,}|sess-[A-Za-z0-9]{30,}",
    "npm token": r"npm_[A-Za-z0-9]{30,}",
    "PyPI token": r"pypi-AgE[\w-]{16,}",
    "Prefect key": r"pn[ub]_[A-Za-z0-9]{20,}",
    "Weights & Biases key": r"wandb_v1_[A-Za-z0-9_]{20,}",
    "Docker token": r"dckr_[a-z]{3}_[\w-]{20,}",
    "DigitalOcean token": r"do[opr]_v1_[a-f0-9]{40,}",
    "Databricks token": r"dapi[a-f0-9]{32}(?:-\d+)?",
    "Groq, Replicate, xAI or Perplexity key": r"gsk_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{30,}"
    r"|pplx-[A-Za-z0-9]{30,}",
    "Vault token": r"hv[sbr]\.[\w-]{20,}",
    "Shopify token": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "Atlassian token": r"AT(?:ATT3|CTT3|BB)[\w=-]{20,}",
    "Grafana token": r"gl(?:c|sa)_[\w+/=]{30,}",
    "other service's token": r"sntry[su]_[\w+/=-]{30,}|lin_api_[A-Za-z0-9]{30,}|ntn_[A-Za-z0-9]{40,}"
    r"|fig[dou]_[\w-]{30,}|PMAK-[a-f0-9]{24}-[a-f0-9]{34}|rubygems_[a-f0-9]{48}|lsv2_[a-z]{2}_[\w-]{30,}"
    r"|tskey-[\w-]{16,}|dp\.[a-z]{2,5}\.[A-Za-z0-9]{40,}|pscale_[a-z]{2,5}_[\w.-]{30,}|cio[A-Za-z0-9]{32}"
    r"|nfp_[A-Za-z0-9]{30,}|EAACEdEose0cBA[A-Za-z0-9]+|oy2[a-z0-9]{43}|ATATT[\w=-]{30,}",
}
_KINDS: dict[str, str] = {}


@cache
def _tokens() -> re.Pattern[str]:
    """All of them as one pattern, which passes over a text once. None begins within a word: a digest is no token."""
    kinds: dict[str, list[str]] = {kind: [pattern] for kind, pattern in _MORE.items()}
    for place in _DETECTORS:
        module, _, name = place.partition(":")
        detector = getattr(import_module(f"detect_secrets.plugins.{module}"), name)
        for regex in detector.denylist:
            if "aws." not in regex.pattern:  # by the name before it, which is below
                flags = "i" if regex.flags & re.IGNORECASE else ""
                tail = "" if regex.pattern.endswith((r"(?!\w)", "+")) else r"[\w+/=-]{0,200}"
                pattern = f"(?{flags}:{regex.pattern}){tail}"
                kinds.setdefault(detector.secret_type, []).append(pattern)
    named = []
    for number, (kind, patterns) in enumerate(kinds.items()):
        _KINDS[f"kind{number}"] = kind
        named.append(f"(?P<kind{number}>{'|'.join(patterns)})")
    return re.compile(rf"(?<![A-Za-z0-9])(?=[A-Za-z0-9]{{2}}|-----BEGIN)(?:{'|'.join(named)})")


def prepare() -> None:
    """Import and compile what `find` needs."""
    _tokens()


# --- secrets that are known by where they stand ---------------------------------------------------------------

_BEFORE = 100
"""Characters before an anchor that are looked at."""


class _SecretPattern(NamedTuple):
    """A secret by what stands before it."""

    kind: str
    anchors: tuple[bytes, ...]
    """Words in lower case, one of which is there."""
    before: re.Pattern[str] | None
    """What ends where the anchor begins."""
    after: re.Pattern[str]
    """What begins there; its group `secret` is the secret."""
    holds: Callable[[re.Match[str]], bool] | None
    """What else is to be true of what `after` found."""

    def fits(self, text: str, at: int, found: re.Match[str]) -> bool:
        """Whether what stands before it, and the secret itself, are of this kind."""
        if self.holds and not self.holds(found):
            return False
        return not self.before or bool(self.before.search(text, max(0, at - _BEFORE), at))


def _places(
    kind: str, anchors: str, before: str, *after: str, holds: Callable[[re.Match[str]], bool] | None = None
) -> list[_SecretPattern]:
    ending = re.compile(rf"(?:{before})\Z", re.IGNORECASE) if before else None
    names = tuple(anchors.encode().split())
    return [_SecretPattern(kind, names, ending, re.compile(pattern), holds) for pattern in after]


_FILLED_IN = r"(?:\*{3}|\.{3}|[xX]{3}|<|\{|\$[\w{(]|%[({s]|#\{|\[)"
"""How a value begins that is hidden already, or stands for another."""
_SECRET_WORD = r"(?i:pass(?:word|wd|wort|phrase|code)|pwd|secret|credentials?|token|(?:[a-z]{2,9}_?)?key)"
_WORD = (
    r"(?:None|True|False|null|nil|undefined|true|false|str|bytes|int|float|bool|any|Any|Optional|Union|SecretStr"
    r"|string|String|required|missing|invalid|wrong|expired|incorrect|empty|unset|set|given|needed|not|is|are|the|and"
    r"|was|has|must|will|can|may|for|from|with|when|that|this|your|you|value|instead|option|environ(?:ment)?|self|cls"
    r"|os|settings|config|args|kwargs|getpass|input|request|data|params|options|read|error|failed|denied|none|wanted)"
)
"""A word of prose or of code where a value would stand."""
_IDENTIFIER = rf"(?:(?:[A-Za-z]\w{{0,40}}[._])?{_SECRET_WORD}|(?:self|cls|os|args|config|settings|request)\.[\w.]+)"
_ENDS = r"(?![\w@#$%^*+/=-])"
_VALUE = rf"(?!{_FILLED_IN})(?!(?:{_WORD}|{_IDENTIFIER}){_ENDS})[^\s\"'`,;&<>(){{}}\[\]|\\]"
_CALL = r"(?![(\[{])"
_QUOTE = r"[bBrRuU]{0,2}\\{0,2}(?P<quote>[\"'`])"
_IN_QUOTES = rf"(?!{_FILLED_IN})(?:\\[^\"'`]|(?!(?P=quote))[^\\\r\n])"
# The name's own end, and not what tells of a secret without holding it.
_NAME = (
    r"[a-zA-Z]{3,24}+(?:_string)?"
    r"(?!(?:s|[_-]?(?i:file|path|dir|name|field|len|length|size|policy|type|prompt|reset|manager|store|required|env"
    r"|var|url|uri|count|hint|error|label|regex|pattern|validator|hasher|form|view|id|version|index|word|able)s?)\b)"
    r"(?:[_-]?[A-Za-z0-9]{1,12})?\\{0,2}[\"'`]?\]?"
)
_ANNOTATED = r"[ \t]{0,3}:[ \t]{0,3}[A-Za-z_][\w.\[\] |]{0,40}?[ \t]{0,3}=(?!=)"
_NO_CHOICE = rf"(?!(?:keep|replace|drop){_ENDS})"
"""What may become of secrets, as in `secrets=replace`."""
_ASSIGNED = (
    # password="…", {'password': b'…'}, password: str = "…", ("password", "…"), --password "…"
    rf"{_NAME}(?:{_ANNOTATED}|\s{{0,4}}(?:=>|:=|[=!]==?|[:=,]|%3[aAdD]|(?<=[\"'\w]) ))\s{{0,4}}{_QUOTE}"
    rf"(?P<secret>{_NO_CHOICE}{_IN_QUOTES}{{2,500}})(?=\\{{0,2}}(?P=quote))",
    # password=…, PASSWORD=…, password%3D…
    rf"{_NAME}(?:=>|:=|=(?!=)|%3[dD])(?P<secret>{_NO_CHOICE}{_VALUE}{{3,500}}+){_CALL}",
    # password: …, password = …: what might be a word of a sentence is none, unless the line ends there
    rf"{_NAME}[ \t]{{0,8}}(?::|=>|:=|=(?!=)|%3[aA])[ \t]{{0,8}}"
    r"(?=[A-Za-z._]{0,100}+[^\sA-Za-z._,;:(\[{)\]}\"'\\]|(?<=[ \t])[A-Za-z._]{3,100}+[ \t]*(?:[\r\n]|\Z|[ \t]#))"
    rf"(?P<secret>{_NO_CHOICE}{_VALUE}{{3,500}}+){_CALL}",
    # <password>…</password>
    r"[a-zA-Z]{3,24}+>(?P<secret>[^<>\s][^<>\r\n]{2,300})</",
)
_IN_HEADER = (
    rf"[a-zA-Z]{{3,24}}+\\{{0,2}}[\"'`]?\s{{0,4}}[:=,]\s{{0,4}}{_QUOTE}(?P<secret>{_IN_QUOTES}{{2,2000}})",
    r"[a-zA-Z]{3,24}+\\{0,2}[\"'`]?\s{0,4}[:=]\s{0,4}(?![bBrRuU]{0,2}\\{0,2}[\"'`])"
    r"(?:(?i:bearer|token|basic|negotiate|ntlm|api-?key|key|jwt|dpop|scram-[\w-]{1,20})\s{1,4})?"
    r"(?P<secret>(?i:digest|hawk|oauth|signature|aws4-[\w-]{1,20}|vapid|mac)\s[^\r\n]{1,4000}|[^\s'\",;}\]]{1,4000})",
)
_REST = r"[^\r\n|;&]{0,200}?"
"""The rest of a command, as far as is looked."""
_GIVEN = rf"[\"']?(?!{_FILLED_IN})(?![A-Z_]+\b)(?P<secret>[^\s\"'|;&<>]{{3,300}})"
"""What a command is given, and no placeholder."""
_SET = (
    r"[ \t]{1,4}[\w./:@-]{0,80}?(?i:token|key|password|passwd|secret|pass)[ \t]{1,4}"
    rf"{_GIVEN}(?=[\"']?[ \t]{{0,8}}(?:[\r\n]|\Z))"
)
"""What the commands that set a variable or a setting are given."""
_BARE = r"[^\s\"'`,;<>(){}\[\]|\\]"
_STATE = (
    rf"(?:{_WORD}|a|an|as|at|by|in|on|no|so|too|also|only|now|old|new|safe|weak|strong|fine|good|bad|okay|ok|right|long|short"
    r"|correct|secure|secret|blank|known|public|private|shown|hidden|sent|kept|lost|same|different|always|never|here|there"
    r"|going|being|longer|still|just|more|less|very|probably|[a-z]+(?:ed|ing|able|ible|ly|ent|ive))"
)
"""What a sentence says of a password."""
_OF = r"[ \t]{1,4}(?i:for|of)[ \t]{1,4}(?:(?i:the|my|user|account)[ \t]{1,4})?[\w.@'-]{1,40}"
_IS = r"(?i:is|was|to|ist)"
_NAMED = r"[a-zA-Z]{3,10}+(?<![sS])(?![\w-])"
_SAYS = rf"[ \t]{{1,4}}(?:(?:{_IS}|of|as)\b[ \t]{{0,4}}:?[ \t]{{0,4}}|[:=-][ \t]{{1,4}})?"
_SPOKEN = tuple(  # “the password is hunter2”, “password of bob: hunter2”, “api key 0a1b2c3d was refused”
    rf"{_NAMED}{of}{_SAYS}[(\[]?(?P<secret>{_BARE}{{6,200}}+){_CALL}" for of in ("", _OF)
)
_QUOTED = (  # “the password is 'sesame'”
    rf"{_NAMED}(?:{_OF})?[ \t]{{1,4}}{_IS}[ \t]{{1,4}}{_QUOTE}"
    rf"(?!{_STATE}(?P=quote))(?P<secret>(?:(?!(?P=quote))[^\s\\]){{3,200}})(?=(?P=quote))"
)
_MEANS = r"\\{0,2}[\"']?(?:[ \t]{0,4}[:=]|[ \t]{1,4}(?i:is|was|ist)\b:?)[ \t]{0,4}[\"'`]?"
_NUMBER = rf"[a-zA-Z]{{3,10}}+(?<![sS]){_MEANS}(?P<secret>\d{{4,12}})(?![\w.%-]?\w)"  # “the PIN is 1234”, “OTP: 123456”
_PHRASE = (  # “the passphrase is correct-horse-battery”
    rf"{_NAMED}(?:{_OF})?[ \t]{{1,4}}{_IS}[ \t]{{1,4}}(?!(?:up|out|end|case|one|two|not|well)-)"
    r"(?P<secret>[A-Za-z\d]{1,20}(?:-(?!(?:to|of|in|on|the|and|or|by|a|only|for|is|be)-)[A-Za-z\d]{1,20}){2,12})(?![\w(-])"
)
_KEYS = r"(?<![a-z])(?:api|access|auth|private|account|client|encryption|signing|license|service|master|secret)[ _-]?"
_ORDINARY_NAMES = "BOS|EOS|PAD|UNK|MASK|SEP|CLS|CACHE|PUBLIC|PRIMARY|FOREIGN|SORT|STAGE"

_PLACES = (
    *_places(
        "secret by its name",
        "password passwd passwort passphrase passcode pwd secret credential auth_string",
        "",
        *_ASSIGNED,
    ),
    *_places(
        "secret by its name",
        "key",
        r"(?:api|access|auth|private|account|client|encryption|signing|license|service|db|database|master|shared"
        r"|session|storage|secret|subscription|application|consumer|deploy|ssh|write|admin)[_-]?",
        *_ASSIGNED,
    ),
    *_places(
        "secret by its name",
        "token",
        r"(?:access|auth|authorization|refresh|id|api|bearer|session|bot|oauth|private|personal|deploy|security|csrf"
        r"|xsrf|hf|hub|hugging_?face|github|gh|gitlab|npm|pypi|slack|wandb|app|user|service|job|ci)[_-]?",
        *_ASSIGNED,
    ),
    # token=…, "token": "…": a name that is an ordinary word
    *_places(
        "token by its name",
        "token auth",
        "",
        r"[a-zA-Z]{3,24}+\\{0,2}[\"'`]?\]?\s{0,4}(?:=>|:=|[=!]==?|[:=,]|%3[aAdD])\s{0,4}[bBrRuU]?\\{0,2}[\"'`]?"
        r"(?=[\w.~+/-]{0,200}?\d)(?=[\w.~+/-]{0,200}?[A-Za-z])(?P<secret>[\w.~+/-]{12,500}+=*)(?![(\[])",
    ),
    # WHATEVER_TOKEN=…, WHATEVER_KEY=…
    *_places(
        "secret by its name",
        "token key",
        rf"(?-i:(?<![A-Z_])(?!(?:{_ORDINARY_NAMES})_)[A-Z][A-Z0-9_]{{0,40}}_)",
        *(f"(?=[A-Z]{{3,5}}(?![A-Za-z])){pattern}" for pattern in _ASSIGNED),
    ),
    *_places("secret by its name", "token", r"\b(?:arg|env|export)[ \t]{1,4}", *_ASSIGNED),
    *_places(
        "secret by its name",
        "pass",
        r"(?<![a-z])",
        r"(?i:pass)(?![a-zA-Z])[ \t]{0,4}=(?!=)[ \t]{0,4}"
        rf"(?=\S{{0,80}}[A-Za-z])(?P<secret>{_VALUE}{{4,500}}+){_CALL}",
    ),
    *_places(
        "secret on a command line",
        "password passwd passphrase pwd secret key token credential",
        r"--?(?:[a-z]{1,20}-){0,3}",
        rf"(?!tokens)[a-z]{{3,24}}+[ \t=]+(?:<<<[ \t]*)?(?!-|[A-Z_]+\b)(?P<secret>{_VALUE}{{3,500}}+)",
    ),
    # docker login -p …, sshpass -p…
    *_places("secret on a command line", "login", "", rf"(?i:login)\b{_REST}\s-p[ \t=]{{1,4}}{_GIVEN}"),
    *_places("secret on a command line", "sshpass twine mongo", "", rf"[a-z]{{5,9}}\b{_REST}\s-p[ \t=]{{0,4}}{_GIVEN}"),
    *_places("secret on a command line", "mysql mariadb 7z", "", rf"\w{{2,20}}{_REST}\s-p{_GIVEN}"),
    *_places("secret on a command line", "redis-cli", "", rf"redis-cli{_REST}\s-a[ \t]{{1,4}}{_GIVEN}"),
    *_places("secret on a command line", "zip", "", rf"zip\b{_REST}\s-P[ \t]{{0,4}}{_GIVEN}"),
    *_places("secret on a command line", "ldap", "", rf"ldap[a-z]{{2,12}}{_REST}\s-w[ \t]{{1,4}}{_GIVEN}"),
    *_places(
        "secret on a command line",
        "curl http",
        r"(?<![\w/.:-])",
        rf"(?:curl{_REST}\s-u|https?(?=[ \t]){_REST}\s-a[ \t]{{1,4}})"
        r"[\"']?[\w.@+-]{1,64}:(?P<secret>[^\s'\"]{2,200})",
    ),
    *_places("secret on a command line", "-u", r"\s|^", rf"-U[ \t=]{{0,4}}[\w.@+\\/-]{{1,64}}%{_GIVEN}"),
    *_places("secret on a command line", "pass:", r"-(?:pass(?:in|out)?|k)[ \t]{1,4}[\"']?", rf"pass:{_GIVEN}"),
    *_places(
        "secret on a command line",
        "echo printf",
        r"(?<![\w-])",
        rf"[a-z]{{4,6}}[ \t]{{1,4}}(?:-\w[ \t]{{1,4}})?{_GIVEN}[\"']?[ \t]{{0,4}}\|"
        r"[^\r\n]{0,100}?(?:-stdin|--with-token|login)",
    ),
    *_places(
        "Vault token",
        "login vault_token",
        "",
        r"(?i:login|vault_token)[ \t=]{1,4}(?P<secret>(?:hv[sbr]|[sb])\.[\w-]{4,})",
    ),
    *_places(
        "Weights & Biases key",
        "wandb",
        "",
        r"(?i:wandb)[^\r\n]{0,120}?(?<!\w)(?P<secret>(?:\w{1,20}-)?[0-9a-f]{40})(?!\w)",
    ),
    # ENV NAME …, setenv NAME …, config set name …
    *_places(
        "secret by its name", "env setenv setx set", r"(?<![\w-])", rf"(?:ENV|setenv|setx|set[ \t]+-\w{{1,3}}){_SET}"
    ),
    *_places("secret by its name", "set", r"config(?:ure)?[ \t]{1,4}", rf"(?i:set){_SET}"),
    *_places("secret by its name", "requirepass masterauth", "", rf"[a-z]{{10,11}}[ \t]{{1,4}}{_GIVEN}"),
    *_places(
        "secret by its name",
        "identified",
        "",
        r"(?i:identified\s{1,4}(?:with\s{1,4}\w{1,40}\s{1,4})?by)\s{1,4}(?P<quote>[\"'])(?P<secret>(?:(?!(?P=quote))[^\r\n]){2,300})",
    ),
    # IDENTIFIED BY sesame REPLACE sesame, IDENTIFIED WITH plugin AS '…'
    *_places(
        "secret by its name",
        "identified",
        "",
        r"(?:IDENTIFIED\s{1,4}BY|identified\s{1,4}by(?=\s{1,4}\S{0,60}\d))\s{1,4}"
        rf"(?P<secret>{_VALUE}{{3,200}}+(?:\s{{1,4}}(?i:replace)\s{{1,4}}\S{{3,200}})?)",
        r"(?i:identified\s{1,4}by)\s{1,4}[\"'][^\"'\r\n]{2,200}[\"']\s{1,4}(?i:replace)\s{1,4}[\"']?(?P<secret>[^\s\"';]{2,200})",
        r"(?i:identified\s{1,4}with)\s{1,4}\S{1,40}\s{1,4}(?i:as|using)\s{1,4}(?P<quote>[\"'])(?P<secret>(?:(?!(?P=quote))[^\r\n]){2,300})",
    ),
    # SET PASSWORD FOR me = '…', PASSWORD('…')
    *_places(
        "secret by its name",
        "password",
        r"(?<!\w)",
        r"(?i:password\s{1,4}for)\s{1,4}\S{1,100}\s{0,4}=\s{0,4}(?i:(?:old_)?password\(\s{0,4})?(?P<quote>[\"'])"
        r"(?P<secret>(?:(?!(?P=quote))[^\r\n]){2,300})",
        r"PASSWORD\(\s{0,4}(?P<quote>[\"'])(?P<secret>(?:(?!(?P=quote))[^\r\n]){2,300})",
    ),
    # in a sentence
    *_places(
        "secret by its name",
        "password passwd passwort passphrase passcode pwd secret",
        r"(?<!\w)",
        *_SPOKEN,
        holds=lambda found: is_no_word(found["secret"]),
    ),
    *_places("secret by its name", "password passwd passwort passphrase passcode pwd secret", r"(?<!\w)", _QUOTED),
    *_places("secret by its name", "password passwd passwort passphrase passcode pwd", r"(?<!\w)", _PHRASE, _NUMBER),
    *_places(
        "secret by its name",
        "pin otp",
        r"(?<![^\W_])",
        rf"(?=\w{{3}}\b){_NUMBER}",
        r"(?:PIN|OTP)[ \t](?P<secret>\d{4,8})(?![\w.%-]?\w)",
    ),
    *_places(
        "secret by its name",
        "code",
        r"\b(?:pin|security|verification|access|login|one-time|auth(?:entication)?|confirmation|recovery|[2m]fa)[ -]",
        _NUMBER,
    ),
    *_places(
        "secret by its name",
        "password passphrase passwort",
        r"\b(?:my|our|mein)[ \t]{1,4}",
        rf"[a-z]{{8,10}}+(?:{_OF})?[ \t]{{1,4}}(?:is|ist|was)[ \t]{{1,4}}"
        rf"(?!{_STATE}{_ENDS})(?P<secret>{_VALUE}{{4,200}}+){_CALL}",
    ),
    *_places(
        "secret by its name",
        "key",
        _KEYS,
        *_SPOKEN,
        holds=lambda found: is_no_word(found["secret"]),
    ),
    *_places("secret by its name", "key", _KEYS, _QUOTED),
    # of the lengths that keys have, and digests that are called keys have not: those of stages are sha256
    *_places(
        "secret by its name",
        "key",
        r"(?<![\w-])(?<!cache )(?<!cache-)(?<!stage )(?<!primary )",
        rf"(?i:key)(?:{_MEANS}|[ \t])(?P<secret>(?:[\da-f]{{32}}|[\da-f]{{40}}|[\dA-F]{{32}}|[\dA-F]{{40}})(?![\w-]))",
    ),
    *_places(
        "token by its name",
        "token",
        r"(?<![a-z])",
        *_SPOKEN,
        holds=lambda found: len(found["secret"]) >= 12 and is_no_word(found["secret"]),
    ),
    *_places(
        "Kaggle key",
        "username",
        "",
        r"username\\{0,2}[\"']\s{0,4}:\s{0,4}\\{0,2}[\"'][^\"'\r\n]{1,80}[\"'],\s{0,4}\\{0,2}[\"']key\\{0,2}[\"']\s{0,4}:\s{0,4}\\{0,2}[\"']"
        r"(?P<secret>[^\"'\\\r\n]{8,200})",
    ),
    # .pgpass: host:port:database:user:password
    *_places(
        "password in an address",
        ":",
        r"(?:^|\s)[\w.*-]{1,90}",
        r":(?:\d{4,5}|\*):[A-Za-z_*][\w.*-]{0,63}:[\w.*-]{1,64}:(?P<secret>[^\s:]{4,200})(?=[ \t]*(?:[\r\n]|\Z))",
    ),
    *_places(
        "secret on a command line",
        "-u --user --proxy-user",
        r"\s|^",
        r"-[a-z-]{1,12}+[ \t=]+[\"']?[\w.@+-]{1,64}:(?P<secret>[^\s'\"]{2,200})",
    ),
    *_places(
        "secret by its name", "password", r"\blogin\s{1,4}\S{1,80}\s{1,4}", r"password\s{1,4}(?P<secret>\S{1,200})"
    ),
    *_places(
        "secret parameter of an address",
        "token key secret signature password passwd pwd sig auth code credential",
        r"[?&;][\w.-]{0,40}",
        r"[a-zA-Z]{3,24}+=(?P<secret>[^&\s'\"<>]{1,2000})",
    ),
    *_places("authorization header", "authorization", r"(?:proxy-|x-[a-z]{1,20}-)?", *_IN_HEADER),
    *_places(
        "authorization header",
        "key token",
        r"\b(?:x-api-|x-[a-z]{1,20}-|private-|job-|x-auth-|x-amz-security-|ocp-apim-subscription-)",
        *_IN_HEADER,
    ),
    *_places(
        "bearer token",
        "bearer",
        r"(?<![a-z])",
        r"[a-zA-Z]{3,24}+[ \t]{1,4}(?!\*)(?=[\w.~+/-]{0,200}?[\d._~+/-])(?P<secret>[\w.~+/-]{12,4000}=*)",
    ),
    *_places(
        "basic authentication",
        "basic",
        r"(?<![a-z])",
        r"[a-zA-Z]{3,24}+[ \t]{1,4}(?P<secret>[A-Za-z0-9+/]{6,400}={0,2})",
        holds=lambda found: _is_user_and_password(found["secret"]),
    ),
    *_places(
        "cookie",
        "cookie",
        "",
        r"[a-zA-Z]{3,24}+\\{0,2}[\"'`]?\s{0,4}[:,]\s{0,4}[\"'`]?(?P<secret>[\w.-]{1,80}=[^\r\n\"'`]{4,4000})",
    ),
    # me:pass@word/with@any@host, token@host; then percent-encoded, and without a scheme
    *_places(
        "password in an address",
        "://",
        "",
        r"://(?P<secret>[^\s/@:'\"<>]{0,256}:(?!\d{1,5}(?:[/?#]|$))[^\s'\"<>]{1,256})@(?=[^\s@'\"<>/]|$)",
        r"://(?!(?:git|hg|svn|anonymous|ftp)@)(?P<secret>[^\s/@:'\"<>]{1,512})@",
    ),
    *_places("password in an address", "%3a%2f%2f", "", r"(?i:%3a%2f%2f)(?P<secret>[^\s/@'\"<>&]{1,512}?)(?i:%40)"),
    *_places(
        "password in an address",
        ":",
        r"(?<![\w.+/:@-])(?!(?:mailto|to|cc|bcc|from|author|email|e-mail|mail|contact|by|sha256|sha512)\b)[\w.+-]{1,64}",
        r":(?!//)(?P<secret>[^\s'\"<>@:/]{3,128})@(?!sha\d)(?=(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,}\b|localhost\b"
        r"|\d{1,3}(?:\.\d{1,3}){3}\b|[\w-]{1,63}:\d{2,5}\b)",
    ),
)


_TERM = re.compile(
    r"(?:sha|md|utf|base|oauth|argon|pbkdf|python|pkcs|aes|rsa|http|ed|x|v|secp|curve|[a-z]{2,12}_|field|user|form|test"
    r"|line|item)-?\d{1,5}(?![a-z\d])"
    r"|\d+-?(?:bit|byte|char|digit|letter|word|day|hour|minute|second)|[a-z]{2,40}\.[a-z\d_]"
)
"""The name of a method, of a thing with its number, or a size."""
_CAPITALS = re.compile(r"[a-z]?(?:[A-Z]{1,2}[a-z]{1,2}){4}")
_SIGN = re.compile(r"[A-Za-z]{1,40}[!#%^&][A-Za-z]")


def is_no_word(secret: str) -> bool:
    """Whether it is of letters and digits, or of letters with capitals and signs among them, as no word is."""
    if _TERM.match(secret) or "://" in secret or not re.match(r"[\w!@#$%^&*]", secret, re.ASCII):
        return False
    name = secret.partition("/")[0]
    mixed = any(one.isdigit() for one in name) and any(one.isalpha() for one in name)
    return mixed or bool(_CAPITALS.match(secret) or _SIGN.match(secret))


def _is_user_and_password(encoded: str) -> bool:
    """Whether it is base64 of `user:password`, and no word that follows `Basic`."""
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return b":" in decoded and decoded.isascii() and decoded.decode().isprintable()
