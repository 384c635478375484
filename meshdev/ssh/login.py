"""Logging in at one server by keys, by its own questions, or by a password: whatever it offers."""

from typing import Final

import paramiko
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType

from meshdev.errors import SshError
from meshdev.ssh import terminal
from meshdev.ssh.keys import PROMPTS, Keys
from meshdev.ssh.settings import SshHop

#: Steps that a server may want one after the other ("publickey,keyboard-interactive").
_STEPS: Final = 4


class Login:
    """How to log in at one hop, with what is known by now: made once, used for each new connection."""

    def __init__(self, hop: SshHop, loaded: dict[str, paramiko.PKey]) -> None:
        """*loaded*: keys by their files, shared by all hops."""
        self._hop = hop
        self._keys = Keys(hop, loaded)
        self._password: str | None = None

    def run(self, transport: paramiko.Transport) -> None:
        """Log in. Raises SshError where the server accepts nothing that there is, SSHException where it breaks off."""
        methods = self._offered(transport)
        for _ in range(_STEPS):
            if transport.is_authenticated():
                return
            methods = self._step(transport, methods)
        if not transport.is_authenticated():
            raise SshError(f"{self._hop} wants ever more ways to log in")

    def _offered(self, transport: paramiko.Transport) -> list[str]:
        try:
            return list(transport.auth_none(self._hop.user))
        except BadAuthenticationType as error:
            return list(error.allowed_types)

    def _step(self, transport: paramiko.Transport, methods: list[str]) -> list[str]:
        """Log in by one of *methods*; those that are still wanted then."""
        known = {"publickey": self._by_key, "keyboard-interactive": self._by_answers, "password": self._by_password}
        for method in (each for each in known if each in methods):
            left = known[method](transport)
            if left is not None:
                return left
        raise SshError(
            f"{self._hop} refuses the login (it offers: {', '.join(methods) or 'nothing'})"
            + "".join(f"; {each}" for each in self._keys.problems),
            hint=f"`ssh-add -l` shows the agent's keys; `ssh -v {self._hop.as_command}` shows what ssh tries",
        )

    def _by_key(self, transport: paramiko.Transport) -> list[str] | None:
        for key in self._keys.candidates():
            try:
                left = list(transport.auth_publickey(self._hop.user, key))
            except BadAuthenticationType:
                return None
            except AuthenticationException:
                if transport.is_active():
                    continue
                raise SshError(
                    f"{self._hop} has broken off: too many keys were tried",
                    hint="IdentitiesOnly yes and IdentityFile in ~/.ssh/config choose the right one",
                ) from None
            self._keys.worked(key)
            return left
        return None

    def _by_password(self, transport: paramiko.Transport) -> list[str] | None:
        """The one that was accepted is kept in memory for the next connection."""
        for _ in range(PROMPTS):
            password = self._password or terminal.ask(f"{self._hop}'s password: ")
            self._password = None
            if not password:
                return None
            try:
                left = list(transport.auth_password(self._hop.user, password, fallback=False))
            except BadAuthenticationType:
                return None
            except AuthenticationException:
                if not transport.is_active():
                    raise
                continue
            self._password = password
            return left
        return None

    def _by_answers(self, transport: paramiko.Transport) -> list[str] | None:
        """Whatever the server asks; answers may be good once only, and are not kept."""
        if not terminal.there_is_one():
            return None
        try:
            return list(transport.auth_interactive(self._hop.user, self._answers))
        except AuthenticationException:
            return None

    def _answers(self, title: str, instructions: str, questions: list[tuple[str, bool]]) -> list[str]:
        head = "".join(f"{each}\n" for each in (title, instructions) if each and questions)
        answers = []
        for text, echo in questions:
            answers.append(terminal.ask(f"{head}({self._hop}) {text}", echo=echo) or "")
            head = ""
        return answers
