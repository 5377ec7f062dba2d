"""The server as a command: ``python -m sklearn_gliclass.serve FOLDER``."""

import argparse
import sys

import torch

from ..estimator_folder import load_estimator
from ..optional_dependencies import import_optional
from . import create_app
from .json_logs import write_json_logs
from .limits import Limits

_HELP = {
    "max_batch": "texts from which on a batch is full",
    "max_wait": "seconds that a request waits for others",
    "max_queue": "texts in the queue; when it is full, requests are answered with 503",
    "request_timeout": "seconds until a request is answered with 503",
    "max_body_bytes": "size of a body in bytes",
    "body_timeout": "seconds in which head and body of a request must each arrive",
    "max_texts": "texts in a request",
    "max_characters": "characters of a text",
    "max_labels": "labels in a request",
    "max_label_characters": "characters of a label",
    "max_label_sets": "label sets whose embeddings are kept in memory",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sklearn_gliclass.serve",
        description="Serve a saved estimator over HTTP. http://HOST:PORT/docs describes the requests.",
        epilog="There is no authentication: keep the server behind a reverse proxy, or on this machine.",
    )
    parser.add_argument("folder", help="folder of save_pretrained, or a name on the Hugging Face hub")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--labels", help="labels of a zero-shot classifier, with commas: sports,politics")
    parser.add_argument("--device", default="auto", help="device of the model (default: %(default)s)")
    parser.add_argument("--dtype", help="floating point type, for example bfloat16 (default: that of the estimator)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--max-connections", type=int, default=1000, help="open connections (default: %(default)s)")
    parser.add_argument("--grace", type=int, default=30, help="seconds to finish requests at SIGTERM (%(default)s)")
    for name, text in _HELP.items():
        default = getattr(Limits, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default, help=f"{text} (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        uvicorn = import_optional("uvicorn", "serve", "sklearn_gliclass.serve")
        write_json_logs(options.log_level)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        labels = None if options.labels is None else [label.strip() for label in options.labels.split(",")]
        dtype = {} if options.dtype is None else {"dtype": options.dtype}
        estimator = load_estimator(options.folder, labels, device=options.device, **dtype)
        app = create_app(estimator, **{name: getattr(options, name) for name in _HELP})
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    from .connections import limited_protocol

    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        http=limited_protocol(options.body_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=options.max_connections,
        timeout_graceful_shutdown=options.grace,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
