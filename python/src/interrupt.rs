//! Ctrl-C ends the body of a step. Python notes a signal and raises `KeyboardInterrupt` when it next runs, which is when the step is over; so this
//! listens in front of Python's own handler, asks the step to end, and lets Python note it as ever. Handing each step to another thread and polling would do
//! as well, and costs small steps more than they take.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use thalweg::runtime::AbortFlag;

/// While it lives, Ctrl-C raises a flag; where this thread is the one that Python's handlers run on.
pub(crate) struct Armed(());

impl Armed {
    pub(crate) fn new(py: Python<'_>, flag: &'static AbortFlag) -> PyResult<Option<Self>> {
        static MAIN: PyOnceLock<u64> = PyOnceLock::new();
        let main = || py.import("threading")?.call_method0("main_thread")?.getattr("ident")?.extract();
        if *MAIN.get_or_try_init(py, main)? != sys::this_thread() {
            return Ok(None);
        }
        Ok(sys::arm(flag).then_some(Self(())))
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        sys::disarm();
    }
}

#[cfg(unix)]
mod sys {
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use thalweg::runtime::AbortFlag;

    /// The flag of the step that the main thread runs.
    static FLAG: AtomicPtr<AbortFlag> = AtomicPtr::new(ptr::null_mut());
    /// What handled the signal before.
    static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

    extern "C" fn on_interrupt(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: flags that were given are never freed, and raising one is a store. What was there before was installed by whoever
        // installs handlers, and is called as the system would call it.
        unsafe {
            if let Some(flag) = FLAG.load(Ordering::Acquire).as_ref() {
                flag.raise();
            }
            if let Some(before) = BEFORE.load(Ordering::Acquire).as_ref() {
                let handler = before.sa_sigaction;
                if before.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(handler);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                    handler(signal);
                }
            }
        }
    }

    pub(super) fn arm(flag: &'static AbortFlag) -> bool {
        let ours = on_interrupt as *const () as libc::sighandler_t;
        // SAFETY: both actions are whole, and the handler does only what a handler may.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGINT, ptr::null(), &mut now) != 0 {
                return false;
            }
            if now.sa_sigaction == libc::SIG_DFL || now.sa_sigaction == libc::SIG_IGN {
                // The process ends of it, or nothing does.
                return false;
            }
            if now.sa_sigaction != ours {
                // Somebody has set another handler since, or this is the first step. What was kept before may be in use.
                BEFORE.store(Box::into_raw(Box::new(now)), Ordering::Release);
                let mut action = now;
                action.sa_sigaction = ours;
                action.sa_flags |= libc::SA_SIGINFO;
                if libc::sigaction(libc::SIGINT, &action, ptr::null_mut()) != 0 {
                    return false;
                }
            }
        }
        FLAG.store(ptr::from_ref(flag).cast_mut(), Ordering::Release);
        true
    }

    /// As Python's `threading.get_ident` has it.
    pub(super) fn this_thread() -> u64 {
        // SAFETY: it takes nothing.
        unsafe { libc::pthread_self() as u64 }
    }

    pub(super) fn disarm() {
        FLAG.store(ptr::null_mut(), Ordering::Release);
    }
}

#[cfg(not(unix))]
mod sys {
    use thalweg::runtime::AbortFlag;

    pub(super) fn arm(_: &'static AbortFlag) -> bool {
        false
    }
    pub(super) fn disarm() {}
    pub(super) fn this_thread() -> u64 {
        0
    }
}
