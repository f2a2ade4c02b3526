//! Named places between two states that others can see. `BERTH_SHIM_FAILPOINT=name` ends this process at one of them,
//! as SIGKILL would. Debug builds only: nothing of it is in a release build.

/// Dies here if the environment says so.
#[cfg(debug_assertions)]
pub(crate) fn reach(name: &str) {
    static ARMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var("BERTH_SHIM_FAILPOINT").ok());
    if armed.as_deref() == Some(name) {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reach(_: &str) {}
