"""The interactive viewer of fits, in a browser, by ``viser``: `serve`.

`Stage` has the state and computes what is to be seen; this module hands it to ``viser`` and reports
what the user does. All changes of the state happen in one thread, one after the other.
"""

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional
from flowprior.body import BodyModel
from flowprior.fitting import DEFAULT_PRIOR
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePrior
from flowprior.results import Fits
from flowprior.results.bodies import body_of
from flowprior.skeleton import SMPL_24
from flowprior.view.colours import legend_html
from flowprior.view.photos import photo_array
from flowprior.view.player import Player
from flowprior.view.stage import NUM_DIRECTIONS, Stage

__all__ = ["Viewer", "serve"]

FIT = (232, 72, 138)
SAMPLES = ((122, 79, 181), (238, 177, 29))
OTHER = (185, 188, 198)
BONE = (59, 62, 71)
JOINT_RADIUS_M = 0.028
BONE_M = 0.008
SAMPLE_BONE_M = 0.004
PHOTO_PX = 1280
OPACITY = 0.45
MARGIN = 1.35
LOGGER = logging.getLogger(__name__)
# Where directional lights stand, in the photo's axes, and how bright they are.
LIGHTS = (((-2.0, -3.0, -3.0), 2.2), ((2.0, -2.0, 3.0), 1.4))
HELP = """\
**Drag** a joint parallel to the screen, or **click** it for arrows along the axes. On release,
body, samples and colours are those of the posterior given the placed joints.
"""


def serve(
    fits: Fits,
    *,
    body: BodyModel | None = None,
    prior: PosePrior | str = DEFAULT_PRIOR,
    host: str = "127.0.0.1",
    port: int = 8080,
    dark: bool = False,
    block: bool = True,
) -> "Viewer":
    """Serve fits to a browser, with the posterior behind them.

    Args:
        fits: The people, at least one.
        body: The body of the fits; needed unless it is the embedded one.
        prior: A prior over SMPL's 24 joints with 2D keypoints and 3D joints as evidence, or the
            name of a pretrained one.
        host: Address to listen at; "0.0.0.0" for every address of the machine.
        port: Port to listen at; the next free one if it is taken.
        dark: Whether the page is dark.
        block: Whether to serve until interrupted (Ctrl-C); otherwise the caller stops the viewer.

    Returns:
        The viewer, stopped if ``block``.

    Raises:
        ImportError: ``viser`` is not installed.
        ValueError: There is nobody in the fits, or body or prior do not fit.
    """
    viewer = Viewer(fits, body=body, prior=prior, host=host, port=port, dark=dark)
    if block:
        print(f"The viewer is at {viewer.url}; Ctrl-C stops it.")
        try:
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
        finally:
            viewer.stop()
    return viewer


class Viewer:
    """A running viewer; arguments as for `serve`.

    Attributes:
        stage: The state.
        url: Address of the page.
    """

    def __init__(
        self,
        fits: Fits,
        *,
        body: BodyModel | None = None,
        prior: PosePrior | str = DEFAULT_PRIOR,
        host: str = "127.0.0.1",
        port: int = 8080,
        dark: bool = False,
    ) -> None:
        viser = import_optional("viser", purpose="The viewer", package="viser", extra="view")
        if isinstance(prior, str):
            prior = ConditionalPosePrior.from_pretrained(prior)
        self.stage = Stage(fits, body_of(fits, body), prior)
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._moves: dict[int, Any] = {}
        self._track = self.stage.fits.person[self.stage.row]
        self._lock = threading.Lock()
        self._server = viser.ViserServer(host=host, port=port, verbose=False)
        shown_host = "localhost" if host in ("0.0.0.0", "") else host
        self.url = f"http://{shown_host}:{self._server.get_port()}"
        self._build(dark)
        self._show_person()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the server."""
        self._player.stop()
        self._work.put(None)
        self._thread.join()
        self._server.stop()

    def place(self, joint: int, place: NDArray[np.float64]) -> None:
        """Place a joint, as a user does with the mouse.

        Args:
            joint: Index of the joint in SMPL's order, not the pelvis.
            place: (3,) metres, in the frame of the camera.
        """
        self._move(joint, place, "end")

    def show_all_samples(self, shown: bool) -> None:
        """Show or hide the skeletons of all samples."""
        self._all.value = shown
        self.submit(self._show_body)

    def submit(self, action: Callable[[], None]) -> None:
        """Call an action in the thread that changes the state, after those before it."""
        self._work.put(action)

    def is_idle(self) -> bool:
        """Whether every action has been carried out."""
        return self._work.unfinished_tasks == 0

    def clients(self) -> list[Any]:
        """The browsers that show the page, as ``viser`` describes them."""
        return list(self._server.get_clients().values())

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The panel.

    def _build(self, dark: bool) -> None:
        scene, gui = self._server.scene, self._server.gui
        scene.set_up_direction("-y")
        scene.world_axes.visible = False
        # Lights of our own: where the processor draws, the default ones take half a minute.
        scene.configure_environment_map(None)
        scene.configure_default_lights(enabled=False)
        scene.add_light_ambient("/lights/ambient", intensity=1.3)
        for index, (place, intensity) in enumerate(LIGHTS):
            scene.add_light_directional(f"/lights/{index}", intensity=intensity, position=place)
        gui.configure_theme(dark_mode=dark, show_logo=False, show_share_button=False)
        gui.set_panel_label("flowprior")
        fits, stage = self.stage.fits, self.stage
        self._image = gui.add_dropdown("Image", fits.images, initial_value=stage.image)
        self._image.visible = len(fits.images) > 1
        self._player = Player(gui, fits, lambda image: self.submit(lambda: self._play(image)))
        self._person = gui.add_dropdown("Person", ["1"])
        self._photo = gui.add_checkbox("Photo", True)
        self._joints = gui.add_checkbox("Joints", True)
        self._opacity = gui.add_slider("Body", 0.0, 1.0, 0.05, OPACITY)
        self._views = gui.add_button_group("View", ("Camera", "Side", "Back", "Top"))
        gui.add_html(legend_html(stage.scale))
        with gui.add_folder("Samples"):
            self._sample = gui.add_slider("Sample", 0, max(1, stage.num_samples), 1, 0)
            self._all = gui.add_checkbox("All samples", False)
        with gui.add_folder("Latent directions"):
            gui.add_markdown("In standard deviations of the latent.")
            self._amounts = [
                gui.add_slider(f"{index + 1}", -3.0, 3.0, 0.1, 0.0)
                for index in range(NUM_DIRECTIONS)
            ]
        with gui.add_folder("Placed joints"):
            gui.add_markdown(HELP)
            self._keep = gui.add_checkbox("Keep the other keypoints", True)
            self._report = gui.add_markdown("")
            self._release = gui.add_button("Release all")
        self._listen()

    def _listen(self) -> None:
        self._on(self._image, self.choose_image)
        self._player.listen()
        self._on(self._person, lambda number: self.choose_person(int(number)))
        self._on(self._photo, lambda _: self._show_photo())
        for handle in (self._joints, self._opacity, self._all):
            self._on(handle, lambda _: self._show_body())
        self._on(self._sample, lambda sample: self._change(self.stage.show_sample, sample))
        for index, slider in enumerate(self._amounts):
            self._on(slider, functools.partial(self._change, self.stage.show_direction, index))
        self._on(self._keep, self._keep_keypoints)
        self._release.on_click(lambda _: self.submit(lambda: self._settle(release=True)))
        self._views.on_click(lambda event: self._look(event.client, event.target.value))
        self._server.on_client_connect(lambda client: self._look(client, "Camera"))

    def _on(self, handle: Any, action: Callable[[Any], None]) -> None:  # noqa: ANN401, viser's
        """Call an action with the value of a control when the user changes it."""

        @handle.on_update  # type: ignore[untyped-decorator]
        def _(event: Any) -> None:  # noqa: ANN401, viser's
            if event.client is not None:  # not the program itself
                # The value of now: by the time of the call, the control may have been set.
                self.submit(functools.partial(action, event.target.value))

    def _run(self) -> None:
        while (action := self._work.get()) is not None:
            try:
                action()
            except Exception:  # the viewer goes on, and its user sees what happened
                LOGGER.exception("this could not be shown")
            finally:
                self._work.task_done()

    # What the user does.

    def choose_image(self, image: str) -> None:
        """Show an image, with the same person as before if there is one of that number."""
        rows = self.stage.people(image)
        same = [row for row in rows if self.stage.fits.person[row] == self._track]
        self.stage.select((same or rows)[0])
        self._show_person()
        self._player.show(image)

    def play(self) -> None:
        """Play the images in order, at the frame rate of a sequence."""
        self._player.start()

    def pause(self) -> None:
        """Stop playing; the image that is shown stays."""
        self._player.stop()

    def _play(self, image: str) -> None:
        """Show the next image of a sequence without moving the cameras."""
        rows = self.stage.people(image)
        same = [row for row in rows if self.stage.fits.person[row] == self._track]
        self.stage.select((same or rows)[0])
        self._image.value = image
        self._show_person(move_cameras=False)
        self._player.show(image)

    def choose_person(self, number: int) -> None:
        """Show a person of the image, counted from 1."""
        rows = self.stage.people(self.stage.image)
        self.stage.select(rows[number - 1])
        self._track = self.stage.fits.person[self.stage.row]
        self._show_person()

    def _change(self, change: Callable[..., None], *values: object) -> None:
        change(*values)
        self._show_body()
        self._show_controls()

    def _keep_keypoints(self, keep: bool) -> None:
        self.stage.keep_keypoints = keep
        self._settle()

    def _move(self, joint: int, place: Any, phase: str) -> None:  # noqa: ANN401, an array
        """A joint is dragged: the latest place counts, earlier ones may be skipped."""
        with self._lock:
            waiting = joint in self._moves
            self._moves[joint] = np.array(place, np.float64)
        if not waiting:
            self.submit(lambda: self._follow(joint))
        if phase == "end":
            self.submit(self._settle)

    def _follow(self, joint: int) -> None:
        with self._lock:
            place = self._moves.pop(joint)
        self.stage.move(joint, place)
        self._show_body()

    def _settle(self, release: bool = False) -> None:
        if release:
            self.stage.release()
            self._gizmo.visible = False
        else:
            self.stage.settle()
        self._show_body()
        self._show_controls()

    def _look(self, client: Any, view: str) -> None:  # noqa: ANN401, viser's
        """Turn the camera of a browser to one of the views."""
        shown = self.stage.body_on_screen()
        row, fits = self.stage.row, self.stage.fits
        joints = shown[1] if shown else fits.joints[row]
        low, high = joints.min(axis=0), joints.max(axis=0)
        middle = (low + high) / 2
        narrow = min(1.0, client.camera.aspect)  # a phone held upright
        half = (MARGIN * float(max(high - low)) / 2 + 0.1) / narrow
        depth = max(float(middle[2]), 0.5)
        # From the camera of the photo the body lies over its picture; the angle of view is such
        # that it fills the page.
        fov = float(np.clip(2 * np.arctan(half / depth), 0.05, 1.4))
        away = half / np.tan(fov / 2)
        sides = {"Side": (1.0, 0.0, 0.0), "Back": (0.0, 0.0, 1.0), "Top": (0.0, -1.0, -0.02)}
        with client.atomic():
            client.camera.fov = fov
            client.camera.up_direction = (0.0, -1.0, 0.0)
            if view == "Camera":
                client.camera.position = (0.0, 0.0, -0.05)  # at the origin, viser draws a haze
            else:
                client.camera.position = tuple(middle + away * np.array(sides[view]))
            client.camera.look_at = tuple(middle)

    # What the page shows.

    def _show_person(self, *, move_cameras: bool = True) -> None:
        scene, stage = self._server.scene, self.stage
        rows = stage.people(stage.image)
        self._person.options = [str(index + 1) for index in range(len(rows))]
        self._person.value = str(rows.index(stage.row) + 1)
        self._person.visible = len(rows) > 1
        for name in ("body", "joints", "bones", "samples", "others", "gizmo"):
            scene.remove_by_name(f"/{name}") if scene.get_handle_by_name(f"/{name}") else None
        faces = stage.body.faces.cpu().numpy()
        for index, vertices in enumerate(stage.others()):
            scene.add_mesh_simple(f"/others/{index}", vertices, faces, color=OTHER, opacity=0.5)
        shown = stage.body_on_screen()
        self._mesh = None
        if shown is not None:
            vertices, joints = shown
            self._mesh = scene.add_mesh_simple(
                "/body", vertices, faces, color=FIT, opacity=OPACITY, side="double"
            )
            self._balls = [self._ball(joint, joints[joint]) for joint in range(len(joints))]
        self._gizmo = scene.add_transform_controls(
            "/gizmo", scale=0.25, disable_rotations=True, depth_test=False, visible=False
        )
        self._gizmo_joint = 0
        self._gizmo.on_update(
            lambda event: self._move(self._gizmo_joint, event.target.position, event.phase)
        )
        self._show_photo()
        self._show_body()
        self._show_controls()
        for client in self.clients() if move_cameras else ():
            self._look(client, "Camera")

    def _ball(self, joint: int, place: Any) -> Any:  # noqa: ANN401, viser's
        """The ball of a joint, which can be dragged unless it is the pelvis."""
        ball = self._server.scene.add_icosphere(
            f"/joints/{SMPL_24.joint_names[joint]}", JOINT_RADIUS_M, subdivisions=2, position=place
        )
        if joint:
            ball.on_drag(lambda event: self._move(joint, event.end_position, event.phase))
            ball.on_click(lambda _: self.submit(lambda: self._show_gizmo(joint)))
        return ball

    def _show_gizmo(self, joint: int) -> None:
        self._gizmo_joint = joint
        self._gizmo.position = self._balls[joint].position
        self._gizmo.visible = True

    def _show_photo(self) -> None:
        scene, stage = self._server.scene, self.stage
        if scene.get_handle_by_name("/photo"):
            scene.remove_by_name("/photo")
        plane = stage.photo()
        if plane is None or not self._photo.value:
            return
        fits, row = stage.fits, stage.row
        picture = photo_array(str(fits.image_path[row]), PHOTO_PX)
        if picture is not None:
            scene.add_image(
                "/photo",
                picture,
                plane.width,
                plane.height,
                format="jpeg",
                position=plane.centre,
                cast_shadow=False,
                receive_shadow=False,
            )

    def _show_body(self) -> None:
        scene, stage = self._server.scene, self.stage
        shown = stage.body_on_screen()
        if shown is None or self._mesh is None:
            return
        vertices, joints = shown
        colours = stage.joint_colours()
        with self._server.atomic():
            self._mesh.vertices = vertices
            self._mesh.opacity = float(self._opacity.value)
            self._mesh.visible = self._opacity.value > 0
            sample = stage.sample
            self._mesh.color = SAMPLES[(sample - 1) % len(SAMPLES)] if sample else FIT
            for ball, place, colour in zip(self._balls, joints, colours, strict=True):
                ball.position = place
                ball.color = tuple(int(value) for value in colour)
                ball.visible = self._joints.value
            if self._joints.value:
                scene.add_line_segments(
                    "/bones", _segments(joints[None])[0], BONE, thickness=BONE_M
                )
            elif scene.get_handle_by_name("/bones"):
                scene.remove_by_name("/bones")
            if self._all.value and stage.num_samples:
                segments = _segments(stage.sample_joints())
                colour = np.array(SAMPLES)[np.arange(len(segments)) % len(SAMPLES)]
                scene.add_line_segments(
                    "/samples",
                    segments.reshape(-1, 2, 3),
                    np.broadcast_to(colour[:, None, None], segments.shape).reshape(-1, 2, 3),
                    thickness=SAMPLE_BONE_M,
                )
            elif scene.get_handle_by_name("/samples"):
                scene.remove_by_name("/samples")

    def _show_controls(self) -> None:
        """Set the controls to the state, where they differ."""
        stage = self.stage
        self._sample.max = max(1, stage.num_samples)
        self._sample.disabled = not stage.num_samples
        self._report.content = stage.report()
        if stage.answer is not None:
            for index, slider in enumerate(self._amounts):
                slider.label = f"{index + 1} {', '.join(stage.directions.names(index))}"
        for slider, value in zip(
            (self._sample, *self._amounts), (stage.sample, *stage.amounts), strict=True
        ):
            if slider.value != value:
                slider.value = value


def _segments(joints: Any) -> Any:  # noqa: ANN401, arrays
    """Bones (n, 23, 2, 3) of joints (n, 24, 3)."""
    children = np.arange(1, SMPL_24.num_joints)
    parents = np.array(SMPL_24.parents)[1:]
    return np.stack([joints[:, parents], joints[:, children]], axis=2).astype(np.float32)
