"""What other packages need to work together; the one place that knows of their versions."""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WITHOUT_TRITON = "--xla_gpu_enable_triton_gemm=false"
NEURAL_TANGENTS = "pip install --no-deps neural-tangents==0.6.5"


def import_neural_tangents() -> Any:
    """Import neural-tangents 0.6.5, the last one, on a JAX of today, without TensorFlow.

    Names that JAX has moved since are given back to where neural-tangents looks for them, if they are missing there.
    `neural_tangents.experimental`, which alone needs TensorFlow, is replaced by an empty module. NTK_VECTOR_PRODUCTS,
    JACOBIAN_CONTRACTION, `stax` and `predict` then work; STRUCTURED_DERIVATIVES and AUTO do not.

    Returns:
        The module.

    Raises:
        ImportError: if neural-tangents is not installed, with the line that installs it.
    """
    if "neural_tangents" in sys.modules:
        return sys.modules["neural_tangents"]
    if importlib.util.find_spec("neural_tangents") is None:
        raise ImportError(f"ntk.engine=neural_tangents needs neural-tangents: {NEURAL_TANGENTS}")
    _restore_jax_names()
    sys.modules.setdefault("neural_tangents.experimental", types.ModuleType("neural_tangents.experimental"))
    return importlib.import_module("neural_tangents")


neural_tangents = import_neural_tangents  # its public name, ntklens.neural_tangents()


def count_scanned(params: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many constants and carried values the equation of a `jax.lax.scan` reads, in this order, before xs.

    JAX 0.11 keeps the three as a tree of leaves, `ft_in`; releases before it keep their numbers.
    """
    if "ft_in" in params:
        constants, carried, _ = params["ft_in"].unpack()
        return len(constants), len(carried)
    return params["num_consts"], params["num_carry"]


def find_custom_rule(params: Mapping[str, Any]) -> Any:
    """Return the function that a `jax.custom_jvp` got as its rule, out of its equation; None where JAX hides it.

    JAX makes other functions around it at every trace; this one stays the same.
    """

    def read_cells(function: Any) -> dict[str, Any]:
        values = (cell.cell_contents for cell in function.__closure__)
        return dict(zip(function.__code__.co_freevars, values, strict=True))

    try:
        return read_cells(read_cells(params["jvp_jaxpr_fun"].f)["fn"])["jvp"].f
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def neural_tangents_settings() -> Iterator[None]:
    """Settings under which neural-tangents runs whatever the caller's: it promotes freely and uses deprecated calls."""
    import jax

    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision("highest"),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
    ):
        yield


def _restore_jax_names() -> None:
    import jax._src.ad_util as ad_util
    import jax._src.source_info_util as source_info_util
    import jax._src.util as jax_util
    import jax.core
    import jax.extend.core
    from jax.interpreters import ad

    for name in ("Jaxpr", "JaxprEqn", "Literal", "Var", "Primitive", "ClosedJaxpr", "jaxpr_as_fun"):
        if not hasattr(jax.core, name):
            setattr(jax.core, name, getattr(jax.extend.core, name))
    for name, value in {"source_info_util": source_info_util, "zeros_like_p": ad_util.zeros_like_p}.items():
        if not hasattr(ad, name):
            setattr(ad, name, value)
    if "jax.util" not in sys.modules and importlib.util.find_spec("jax.util") is None:
        shim = types.ModuleType("jax.util")
        vars(shim).update(safe_map=jax_util.safe_map, safe_zip=jax_util.safe_zip)
        sys.modules["jax.util"] = shim


def leave_out_triton() -> None:
    """Ask XLA not to try Triton's matrix products while it compiles for an NVIDIA GPU, unless XLA_FLAGS chooses itself.

    In full float32 they never win: a kernel at width 512 ran in 0.33 ms either way on an H100, but compiled in
    0.5 s instead of 13 s (benchmarks/gpu.py). Has an effect before JAX's first computation.
    """
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_enable_triton_gemm" not in flags and any(map(importlib.util.find_spec, plugins)):
        os.environ["XLA_FLAGS"] = f"{flags} {WITHOUT_TRITON}".strip()


def use_compilation_cache(results: Path, begin: bool = True) -> None:
    """Keep compiled programs beside the results, so that jobs share them; one folder per kind of processor.

    Programs compiled for another processor would run wrongly or not at all. JAX_COMPILATION_CACHE_DIR, if set, rules.

    Args:
      results: the folder that collects runs.
      begin: whether to begin a cache where there is none; not before the input is checked.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    # A cache that cannot be written, on a full disk say, is no matter.
    logging.getLogger("jax._src.compiler").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = (results / ".compilation_cache" / describe_processor()).resolve()
    if getattr(jax.config, "jax_compilation_cache_dir", None) == str(folder) or not (begin or folder.is_dir()):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_raise_persistent_cache_errors", False)
    compilation_cache.reset_cache()  # JAX decides at its first compilation whether it has one


@functools.cache
def describe_processor() -> str:
    """Return a short name of what compiled programs depend on beside themselves: architecture and instruction sets."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    words = " ".join(sorted(flags.partition(":")[2].split()))
    return f"{platform.machine()}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
