//! The border to foreign code: the dynamic linker, which opens libtorch's CUDA half, and the shim to libtorch's C++ classes
//! that tch does not cover (`shim/`). What is safe to call stands in other modules, such as [`crate::distributed`].
//!
//! The program is linked to libtorch's CPU half only, so that one binary serves both. libtorch registers CUDA when
//! `libtorch_cuda.so` is loaded, and remembers the first answer to "is there CUDA": [`open_cuda`] must run before any tensor
//! is made.
//!
//! No C++ exception enters Rust: a function of the shim that can fail returns null or a message. No panic leaves Rust.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use tch::Tensor;
use torch_sys::C_tensor;

static CUDA: OnceLock<Result<(), String>> = OnceLock::new();

/// Loads `libtorch_cuda.so` with all its symbols (`RTLD_NOW | RTLD_GLOBAL`); the first statement of `main`.
///
/// # Errors
/// The dynamic linker's words where the library or one of its dependencies is not there. Later calls return the first
/// call's result.
pub fn open_cuda() -> &'static Result<(), String> {
    CUDA.get_or_init(open)
}

#[cfg(target_os = "linux")]
fn open() -> Result<(), String> {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }
    // <dlfcn.h> of Linux, all architectures that libtorch is built for.
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;

    // SAFETY: the file name ends with NUL and outlives the call; the library's initialisers are libtorch's own and may run
    // here, as no other thread exists at the start of `main`.
    let handle = unsafe { dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: takes nothing; the result is null or a NUL-terminated string that lives until this thread's next `dl` call,
    // and is copied before that.
    let message = unsafe {
        let text = dlerror();
        if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
    };
    Err(message.unwrap_or_else(|| "the dynamic linker gave no reason".to_owned()))
}

#[cfg(not(target_os = "linux"))]
fn open() -> Result<(), String> {
    Err("CUDA is supported on Linux only".to_owned())
}

/// The shim's `World`, known by its address alone.
#[repr(C)]
struct CWorld {
    _private: [u8; 0],
}

// `shim/world.cpp`. `C_tensor` is torch-sys' name for `at::Tensor`.
unsafe extern "C" {
    fn kinglet_shim_free(text: *mut c_char);
    fn kinglet_world_new(
        host: *const c_char,
        port: u16,
        serves: bool,
        prefix: *const c_char,
        rank: i32,
        size: i32,
        rendezvous_ms: i64,
        timeout_ms: i64,
        out: *mut *mut CWorld,
    ) -> *mut c_char;
    fn kinglet_world_all_reduce(world: *mut CWorld, tensor: *const C_tensor) -> *mut c_char;
    fn kinglet_world_broadcast(world: *mut CWorld, tensor: *const C_tensor, root: i32) -> *mut c_char;
    fn kinglet_world_barrier(world: *mut CWorld) -> *mut c_char;
    fn kinglet_world_close(world: *mut CWorld) -> *mut c_char;
    fn kinglet_world_free(world: *mut CWorld);
}

/// Takes over a function's answer: null, or a message.
///
/// # Safety
/// `message` is what a function of the shim returned, and is passed here once.
unsafe fn answer(message: *mut c_char) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so a NUL-terminated string that is this caller's until it is handed back, once, after the copy.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        kinglet_shim_free(message);
        text
    };
    Err(text)
}

/// Where the processes of a group meet, for [`ProcessGroup::join`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meeting<'a> {
    /// Name or address of the machine with the store.
    pub host: &'a str,
    /// The store's port.
    pub port: u16,
    /// Whether this process serves the store.
    pub serves: bool,
    /// Before the names of all keys in the store.
    pub prefix: &'a str,
    /// This process among `size`.
    pub rank: i32,
    /// Number of processes.
    pub size: i32,
    /// Milliseconds until all have joined.
    pub rendezvous_ms: i64,
    /// Milliseconds for each call thereafter.
    pub timeout_ms: i64,
}

/// Connected processes. Not `Send`: all calls come from one thread, in the same order in every process.
#[derive(Debug)]
pub(crate) struct ProcessGroup(NonNull<CWorld>);

impl ProcessGroup {
    /// Joins the others; returns when all are connected.
    pub fn join(meeting: Meeting<'_>) -> Result<Self, String> {
        let string = |text: &str| CString::new(text).map_err(|_| format!("{text:?} has a NUL inside"));
        let (host, prefix) = (string(meeting.host)?, string(meeting.prefix)?);
        let Meeting { port, serves, rank, size, rendezvous_ms, timeout_ms, .. } = meeting;
        let mut world = null_mut();
        // SAFETY: both strings end with NUL and outlive the call, which copies them; `out` points to a pointer, which is
        // written when null is returned.
        unsafe {
            let (host, prefix) = (host.as_ptr(), prefix.as_ptr());
            answer(kinglet_world_new(host, port, serves, prefix, rank, size, rendezvous_ms, timeout_ms, &mut world))?;
        }
        NonNull::new(world).map(ProcessGroup).ok_or_else(|| "no group was made".to_owned())
    }

    /// Adds up `tensor`, contiguous and f32, over all processes, in place.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<(), String> {
        // SAFETY: the world lives until `drop`, and no other call uses it meanwhile, as `self` stays in one thread; the
        // tensor outlives the call, which waits until it is done with it. The shim refuses another kind or layout.
        unsafe { answer(kinglet_world_all_reduce(self.0.as_ptr(), tensor.as_ptr())) }
    }

    /// Gives `tensor`, contiguous bytes, the value it has in process `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: i32) -> Result<(), String> {
        // SAFETY: as in `all_reduce`.
        unsafe { answer(kinglet_world_broadcast(self.0.as_ptr(), tensor.as_ptr(), root)) }
    }

    /// Returns when all processes have called it.
    pub fn barrier(&self) -> Result<(), String> {
        // SAFETY: the world lives until `drop`, and is used by this thread alone.
        unsafe { answer(kinglet_world_barrier(self.0.as_ptr())) }
    }

    /// Closes the connections, so that the others' calls fail instead of waiting. Every later call fails.
    pub fn close(&self) -> Result<(), String> {
        // SAFETY: the world lives until `drop`, and is used by this thread alone.
        unsafe { answer(kinglet_world_close(self.0.as_ptr())) }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by `kinglet_world_new`, freed here alone.
        unsafe { kinglet_world_free(self.0.as_ptr()) }
    }
}
