"""Two processes of one training, as torchrun starts them, but forked from an imported parent."""

import contextlib
import socket

from tools.kill_runs import PATIENCE_S, start


def together(module, argv, folder):
    """Run a program in two processes, which must both succeed; returns their output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none",
    }
    logs = [folder / f"{rank}.log" for rank in range(2)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                start(
                    module,
                    argv,
                    log,
                    environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            )
            for rank, log in enumerate(logs)
        ]
        for process in processes:
            process.join(PATIENCE_S)
        printed = "".join(log.read_text(encoding="utf-8") for log in logs)
        assert [process.exitcode for process in processes] == [0, 0], printed
    return printed
