"""The studio as a program has it: a hook of the trainer, an address to open, and a wait at the end."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from treadle.engine.events import Hook, Order, Record
from treadle.engine.lifecycle import Stage
from treadle.errors import UsageError, one_line
from treadle.parallel import this_world
from treadle.studio.extra import need_extra
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer
    from treadle.studio.serving.hub import Hub
    from treadle.studio.serving.server import Server
    from treadle.studio.topics import Topic

T = TypeVar("T")


class Studio(Hook):
    """Shows a run in a browser, and lets it be driven from there: the run is the same with it or without.

    It serves from a thread of its own and does nothing in a step. `Studio(trainer)` serves at once; as one of a
    trainer's `hooks` it begins with the run. `trainer.train()` obeys it between steps; so does a loop of one's own:

        studio = Studio(trainer)
        while studio.tick():
            trainer.iterate()
        studio.wait()

    Of several processes that train a run the main one serves, and all obey; after its end it can only be looked at.

    Args:
        trainer: whose run it shows; None where it is given to the trainer as a hook.
        host, port, socket, root, origins: where it listens; see `treadle.studio.address.Place`.
        token, view_token: what opens it; by default random.
        paused: begin with a pause; needs `trainer`.
        open_browser: whether to open one; None does where there is one and somebody at it.
        quiet: do not print the address, which holds the token.

    Raises:
        UsageError: the port or socket is taken, or an option makes no sense.
    """

    observer: ClassVar[bool] = True
    order: ClassVar[int] = Order.LATE
    hears: ClassVar[Sequence[str]] = ("scalars",)
    wants_batches: ClassVar[bool] = False

    def __init__(
        self,
        trainer: Trainer | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        socket: str | Path | None = None,
        root: str = "",
        origins: Sequence[str] = (),
        token: str | None = None,
        view_token: str | None = None,
        paused: bool = False,
        open_browser: bool | None = None,
        quiet: bool = False,
    ) -> None:
        need_extra()
        from treadle.studio.address import Place
        from treadle.studio.serving.hub import Hub
        from treadle.studio.serving.server import Server

        if paused and trainer is None:
            raise UsageError("a studio that begins with a pause needs the trainer: Studio(trainer, paused=True)")
        place = Place(host, port, None if socket is None else Path(socket), root, tuple(origins))
        self._serves = this_world().main
        if not self._serves:  # the address is the main process's
            place = Place()
        self._trainer: Any = None
        self._redirect: Path | None = None
        self._hub: Hub = Hub("")
        self._server: Server = Server(self._hub, place, token=token, view_token=view_token)
        self._open_browser, self._quiet = open_browser, quiet
        if trainer is not None:
            if self._serves:
                self._begin(trainer)
            else:
                self._trainer, self._lifecycle = trainer, trainer.loop.lifecycle
            trainer.add_hook(self)
            if paused:
                trainer.commands.pause()

    def _begin(self, trainer: Trainer) -> None:
        """Show this trainer's run from now on, and serve."""
        for topic in self._topics_of(trainer):
            self._hub.add(topic)
        self._hub.name = self.live.name
        self._open()

    def show(self, trainer: Trainer) -> None:
        """Show this trainer's run in place of the one before: clients come back to it at the same address."""
        self.end_branches()
        topics = self._topics_of(trainer)
        trainer.add_hook(self)
        self._hub.begin_anew(self.live.name, topics)

    def _topics_of(self, trainer: Trainer) -> list[Topic]:
        from treadle.studio.assembly import topics_of
        from treadle.studio.driving.orders import Orders
        from treadle.studio.serving.standing import Standing
        from treadle.studio.topics import Live

        self._trainer, self._lifecycle = trainer, trainer.loop.lifecycle
        path = None if trainer.run is None else trainer.run.path
        name = type(trainer).__name__ if path is None else f"{path.parent.name}/{path.name}"
        self._orders = Orders(trainer.commands)
        self.live = live = Live(name, path, trainer, trainer.loop, self._orders, self._hub)
        self._standing = Standing(live, self._hub.control)
        return [self._standing, *topics_of(live, trainer)]

    def _open(self) -> None:
        self._server.start()
        atexit.register(self.close)
        self._announce()

    @property
    def ended(self) -> bool:
        """Whether the run has ended: finished, failed or closed."""
        return self._trainer is not None and self._lifecycle.ended

    def add(self, topic: Topic) -> None:
        """Let a topic of your own answer requests and tell events. Raises UsageError for a request that has one."""
        self._hub.add(topic)

    def topic(self, kind: type[T]) -> T:
        """Its topic of this class. Raises UsageError where it has none."""
        for topic in self._hub.topics:
            if isinstance(topic, kind):
                return topic
        raise UsageError(f"this studio has no topic {kind.__name__}")

    @property
    def url(self) -> str:
        """The page's address with the token that gives control: whoever has it can drive the run."""
        return self._server.url

    @property
    def view_url(self) -> str:
        """The address for those who may only look."""
        return self._server.view_url

    def revoke(self) -> None:
        """Log everybody out; the address that was printed lets them in again."""
        self._server.revoke()

    def _announce(self) -> None:
        from treadle.studio.address import has_browser, open_browser

        if not self._quiet:
            tunnel = self._server.place.tunnel(self._server.port)
            say(f"studio: {self.url}\n  to look only: {self.view_url}\n  from another machine, first: {tunnel}")
        wanted = has_browser() if self._open_browser is None else self._open_browser
        if wanted and self._server.place.socket is None:
            self._redirect = open_browser(self.url)

    # Driving ------------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Whether to take another step: obeys and sits out a pause; False once the run has ended or was told to stop.

        Costs next to nothing while the run is running: `trainer.iterate()` obeys what was asked.
        """
        return self._lifecycle.stage is Stage.RUNNING or self._may_go_on()

    def _may_go_on(self) -> bool:
        if self._trainer is None:
            raise UsageError("tick() of a studio that has no trainer yet: make it by Studio(trainer)")
        stage = self._lifecycle.stage
        if stage is Stage.PAUSED:
            go_on: bool = self._trainer.driver.attend()
            return go_on
        return stage is Stage.NEW

    def wait(self, train: Callable[[], object] | None = None) -> None:
        """Keep the studio open until the page's "stop": the state at the end can be looked at, and gone back from.

        A run that has not ended, or that a rewind or an extension opens again, is trained on, by `train` (by default
        `trainer.train`), whose errors are told and do not end the wait. Ctrl-C is raised as KeyboardInterrupt.
        """
        train = train or self._trainer.train
        if not self._serves:
            if not self._trainer.ended:
                train()
            return
        with self._orders.attended():
            while True:
                if not self._trainer.ended:
                    try:
                        train()
                    except Exception as error:
                        say(f"treadle: the run has failed: {one_line(error)}")
                    if self._lifecycle.stage in (Stage.STOPPED, Stage.CLOSED):
                        return
                elif self._orders.carry_out_next():
                    return

    def end_branches(self) -> None:
        """End the processes of the run's branches, resumable, but for those that were told to go on; waits for them."""
        from treadle.studio.driving.branches import Branches

        for topic in self._hub.topics:
            if isinstance(topic, Branches):
                topic.close()

    def close(self) -> None:
        """Close every connection, and the address."""
        self.end_branches()
        atexit.unregister(self.close)
        self._server.close()
        if self._redirect is not None:
            self._redirect.unlink(missing_ok=True)
            self._redirect = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the run tells -------------------------------------------------------------------------------------------

    def on_log(self, trainer: Any, record: Record) -> None:
        """Hand it to the server's thread."""
        self._hub.log(record)

    def on_journal(self, trainer: Any, entry: Mapping[str, Any]) -> None:
        """Hand it to the server's thread; the first of a run that this is a hook of begins to serve."""
        if self._trainer is None:
            self._begin(trainer)
        self._hub.journal(dict(entry))

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        """Keep the traceback for the page."""
        if self._trainer is not None:
            self._standing.fail(error)
