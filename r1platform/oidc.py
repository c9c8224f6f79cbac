"""OpenID Connect as a client: the way to the provider, and what comes back, checked. Who that is here is in `oidc_people`.

django-allauth keeps the state in the session, makes PKCE, and trades the code for tokens. The ID token is checked here in
full, also its signature and nonce, which allauth leaves to TLS.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from requests import RequestException, Session

from r1platform.lib.single_sign_on import SingleSignOn, is_safe

ALGORITHMS = ("RS256", "PS256", "ES256")
LEEWAY_SECONDS = 60
"""By so much the clocks of the provider and of this machine may differ."""
MAX_SUBJECT = 191


class SignInRefused(Exception):
    """Why somebody is not signed in, as a sentence for them; `status` is that of the page."""

    def __init__(self, sentence: str, *, status: int = 403) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


@dataclass(frozen=True)
class Identity:
    """Whom the provider has named; `email` is empty unless the provider says that it is verified."""

    issuer: str
    subject: str
    email: str
    wanted_name: str


@dataclass(frozen=True)
class Arrival:
    """Somebody who comes back from the provider: who, where they wanted to go, and to whose account it was asked to be tied."""

    identity: Identity
    next: str
    connect: int | None


def depart(request: HttpRequest, sso: SingleSignOn, *, to: str, connect: int | None) -> HttpResponseBase:
    """Sends the browser to the provider. Raises SignInRefused when it cannot be asked."""
    try:
        answer: HttpResponseBase = Provider(request, sso).redirect(request, "login", next_url=to, data={"connect": connect})
    except (RequestException, OAuth2Error, KeyError, ValueError) as error:
        raise _away(sso, error) from error
    return answer


def arrive(request: HttpRequest, sso: SingleSignOn) -> Arrival:
    """Who came back. The state is used up, whatever follows. Raises SignInRefused."""
    provider = Provider(request, sso)
    try:
        state = provider.unstash_redirect_state(request, request.GET.get("state", ""))
    except PermissionDenied:
        sentence = "This sign-in was begun in another browser, or more than ten minutes ago; begin again."
        raise SignInRefused(sentence, status=400) from None
    if "code" not in request.GET:
        raise SignInRefused(f"{sso.name} did not sign you in: {_words(request)}. Try again, or ask whoever runs it.")
    try:
        identity = Exchange(request, provider).identity(state["pkce_code_verifier"])
    except (RequestException, OAuth2Error, KeyError, ValueError) as error:
        raise _away(sso, error) from error
    return Arrival(identity, state.get("next") or "/", (state.get("data") or {}).get("connect"))


class Requests(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """How allauth asks: no redirect is followed, so that the client's secret goes where it was sent."""

    def get_requests_session(self) -> Session:
        session: Session = super().get_requests_session()
        session.max_redirects = 0
        return session


class Provider(OpenIDConnectProvider):  # type: ignore[misc]
    """The one of the settings. The nonce is made of the verifier, which only this session and, later, the provider know."""

    def __init__(self, request: HttpRequest, sso: SingleSignOn) -> None:
        self.sso = sso
        options = {"server_url": sso.issuer, "oauth_pkce_enabled": True}
        app = SocialApp(provider="openid_connect", provider_id=sso.issuer, name=sso.name, client_id=sso.client_id,
                        secret=sso.client_secret, settings=options)  # fmt: skip
        super().__init__(request, app=app)

    def get_oauth2_adapter(self, request: HttpRequest) -> Exchange:
        return Exchange(request, self)

    def get_pkce_params(self) -> dict[str, str]:
        params: dict[str, str] = super().get_pkce_params()
        return {**params, "nonce": nonce_of(params["code_verifier"])}


class Exchange(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """The requests to the provider behind the browser's back."""

    def __init__(self, request: HttpRequest, provider: Provider) -> None:
        super().__init__(request, provider.sso.issuer)
        self.provider = provider

    def get_provider(self) -> Provider:
        return self.provider

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        return request.build_absolute_uri(reverse("oidc-callback"))

    @property
    def openid_config(self) -> dict[str, Any]:
        """Raises SignInRefused for a document of another issuer, and for addresses in it that are not safe."""
        config: dict[str, Any] = super().openid_config
        if config.get("issuer") != self.provider.sso.issuer and config.get("issuer") != f"{self.provider.sso.issuer}/":
            raise SignInRefused("The provider has another name than R1_OIDC_ISSUER; whoever runs this must mend it.", status=502)
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            if (name in config or name != "userinfo_endpoint") and not is_safe(str(config.get(name, ""))):
                raise SignInRefused(f"The provider's {name} is not an https address; whoever runs it must mend it.", status=502)
        return config

    def identity(self, verifier: str) -> Identity:
        """Trades the code for tokens and reads who it is."""
        app = self.provider.app
        tokens = self.get_access_token_data(self.request, app, self.get_client(self.request, app), pkce_code_verifier=verifier)
        claims = self.checked(str(tokens.get("id_token", "")), nonce=nonce_of(verifier))
        told = claims
        if "email" not in claims and "userinfo_endpoint" in self.openid_config:
            told = self._fetch_user_info(tokens["access_token"])
            if told.get("sub") != claims["sub"]:
                raise _untrue("it and the provider's further answer name different people")
        is_verified = told.get("email_verified") in (True, "true")
        email = str(told.get("email") or "").strip() if is_verified else ""
        name = str(told.get("preferred_username") or email).partition("@")[0]
        return Identity(self.provider.sso.issuer, claims["sub"], email, name)

    def checked(self, token: str, *, nonce: str) -> dict[str, Any]:
        """The claims of an ID token for us, of this sign-in, still valid, signed by the provider. Raises SignInRefused."""
        import jwt  # 8 MiB that only a sign-in needs

        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise _untrue(f"it is signed by “{str(header.get('alg'))[:20]}”, not by one of {', '.join(ALGORITHMS)}")
            claims: dict[str, Any] = jwt.decode(
                token, self._key(header), algorithms=[header["alg"]], audience=self.provider.sso.client_id,
                issuer=self.openid_config["issuer"], leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise _untrue(str(error)) from error
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise _untrue("it is of another sign-in")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != self.provider.sso.client_id:
            raise _untrue("it was made for another program")
        if not 0 < len(claims["sub"]) <= MAX_SUBJECT:
            raise _untrue(f"its subject has {len(claims['sub'])} characters, not 1 to {MAX_SUBJECT}")
        return claims

    def _key(self, header: dict[str, Any]) -> Any:
        """The key of the provider that a token says it is signed with."""
        import jwt

        with Requests().get_requests_session() as session:
            answer = session.get(self.openid_config["jwks_uri"])
        answer.raise_for_status()
        keys = [key for key in jwt.PyJWKSet.from_dict(answer.json()).keys if key.public_key_use in (None, "sig")]
        kid = header.get("kid")
        found = [key for key in keys if key.key_id == kid] if kid is not None else keys
        if len(found) != 1:
            raise _untrue("none of the provider's keys has signed it")
        return found[0].key


def nonce_of(verifier: str) -> str:
    """What the ID token must hold: it says nothing about the verifier, and nobody without it can say it."""
    return hashlib.sha256(b"nonce:" + verifier.encode()).hexdigest()


def _untrue(why: str) -> SignInRefused:
    return SignInRefused(f"The provider's answer is not to be trusted: {why}. Begin again, or tell whoever runs this.", status=400)


def _away(sso: SingleSignOn, error: Exception) -> SignInRefused:
    how = "refused it" if isinstance(error, OAuth2Error) else f"did not answer as it should ({type(error).__name__})"
    return SignInRefused(f"You could not be signed in: {sso.name} {how}. Try again, or sign in another way.", status=502)


def _words(request: HttpRequest) -> str:
    """What the provider says went wrong, as text."""
    said = request.GET.get("error_description") or request.GET.get("error") or "it gave no reason"
    return said[:200].rstrip(". ")
