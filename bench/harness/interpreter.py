"""Which build of CPython runs, on which every figure of a benchmark depends."""

import platform
import sys
import sysconfig


def described() -> str:
    """Return the version and the build, and whether it is profile-guided."""
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        build = "profile-guided (--enable-optimizations)"
    elif _is_debians():
        build = "Debian's or Ubuntu's package, which is profile-guided"
    else:
        build = "NOT profile-guided: up to 1.5 times slower than Debian's"
    return f"CPython {platform.python_version()}, {platform.python_compiler()}, {sys.executable}: {build}"


def _is_debians() -> bool:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return sys.base_prefix == "/usr" and "debian" in (release["ID"], *release.get("ID_LIKE", "").split())
