//! Panics of the `tokenizers` crate as errors.
//!
//! Some tokenizer files that the crate accepts make it panic, when it is built or on the first text: an empty
//! `Prepend`, a `FixedLength` of 0, a broken `Precompiled` map.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught, and so not reported on standard error.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f`. A panic prints nothing.
///
/// # Errors
/// The panic's message.
pub fn catch_panic<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                report(info);
            }
        }));
    });
    let was_caught = IS_CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    IS_CAUGHT.set(was_caught);
    result.map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        format!("the tokenizers crate failed: {message}")
    })
}
