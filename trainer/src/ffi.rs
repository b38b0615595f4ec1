//! The boundary to foreign code: the dynamic linker, which opens libtorch's CUDA libraries, and the shim to libtorch's
//! C++ classes that tch does not cover (`shim/`). Safe wrappers are in other modules, such as [`crate::distributed`].
//!
//! The program is linked to the CPU part of libtorch only, so one binary serves both. libtorch registers CUDA when
//! `libtorch_cuda.so` is loaded, and remembers the first answer to "is there CUDA": [`open_cuda`] must run before any
//! tensor is created.
//!
//! No C++ exception enters Rust: a function of the shim that can fail returns null or a message. No panic leaves Rust.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Mutex, OnceLock, PoisonError};

use tch::Tensor;
use torch_sys::C_tensor;

/// Returns whether this process ignores a signal. For the first statements of a command: a signal that arrives meanwhile ends the process.
pub(crate) fn is_ignored(number: i32) -> bool {
    unsafe extern "C" {
        // <signal.h> of POSIX: a handler is a pointer or one of two numbers.
        fn signal(number: std::ffi::c_int, handler: usize) -> usize;
    }
    const SIG_DFL: usize = 0;
    const SIG_IGN: usize = 1;
    // SAFETY: sets the usual reaction to the signal and then what it was before, which is a handler that this process had set.
    let before = unsafe {
        let before = signal(number, SIG_DFL);
        signal(number, before);
        before
    };
    before == SIG_IGN
}

/// Keeps signals from this thread and the threads that it will start: those that no thread takes wait.
///
/// # Errors
/// That of the system.
pub(crate) fn block(numbers: &[i32]) -> std::io::Result<()> {
    use std::ffi::c_int;

    /// `sigset_t`: 128 bytes in glibc and musl, fewer elsewhere.
    #[repr(C, align(16))]
    struct Signals([u8; 128]);

    unsafe extern "C" {
        // <signal.h> of POSIX.
        fn sigemptyset(set: *mut Signals) -> c_int;
        fn sigaddset(set: *mut Signals, number: c_int) -> c_int;
        fn pthread_sigmask(how: c_int, set: *const Signals, before: *mut Signals) -> c_int;
    }
    const SIG_BLOCK: c_int = if cfg!(target_os = "linux") { 0 } else { 1 };
    let mut set = Signals([0; 128]);
    // SAFETY: the set is at least as large as the system's, which the first call fills; the mask before is not asked for.
    let failed = unsafe {
        sigemptyset(&raw mut set);
        numbers.iter().for_each(|&number| {
            sigaddset(&raw mut set, number);
        });
        pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(failed)) }
}

static CUDA: OnceLock<Result<(), String>> = OnceLock::new();

/// Loads `libtorch_cuda.so` with all its symbols (`RTLD_NOW | RTLD_GLOBAL`); must be the first statement of `main`.
///
/// # Errors
/// The dynamic linker's message if the library or one of its dependencies is missing. Later calls return the result of
/// the first.
pub fn open_cuda() -> &'static Result<(), String> {
    CUDA.get_or_init(open)
}

#[cfg(target_os = "linux")]
fn open() -> Result<(), String> {
    use std::ffi::c_int;

    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }
    // <dlfcn.h> of Linux, all architectures that libtorch supports.
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;

    // SAFETY: the file name ends with NUL and outlives the call; the library's initializers are libtorch's own and may run
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

/// Lets the allocator keep freed memory for the next step: a training step frees and allocates the same tensors each
/// time, and each page that comes from the system again has to be zeroed first.
///
/// Tensors come from the heap instead of separate mappings, and the heap is not shrunk (`mallopt(3)`). Only affects
/// glibc. Call it in `main`, before the first large allocation.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // <malloc.h>
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_MAX: c_int = -4;
        // SAFETY: takes two numbers and changes how later allocations are made; a refusal, which is answered with 0, changes
        // nothing.
        unsafe {
            mallopt(M_MMAP_MAX, 0);
            mallopt(M_TRIM_THRESHOLD, c_int::MAX);
        }
    }
}

/// The shim's `World`, an opaque pointer.
#[repr(C)]
struct CWorld {
    _private: [u8; 0],
}

// `shim/border.cpp`.
unsafe extern "C" {
    fn kinglet_shim_copy(text: *const c_char) -> *mut c_char;
    fn kinglet_shim_free(text: *mut c_char);
}

// `shim/gradient.cpp`. `C_tensor` is torch-sys' name for `at::Tensor`.
unsafe extern "C" {
    fn kinglet_gradient_clear(tensor: *const C_tensor) -> *mut c_char;
}

// `shim/dropout.cpp`.
unsafe extern "C" {
    fn kinglet_dropout(x: *const C_tensor, p: f64, out: *mut *mut C_tensor) -> *mut c_char;
}

// `shim/linear.cpp`.
unsafe extern "C" {
    fn kinglet_has_onednn() -> bool;
    fn kinglet_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

// `shim/rms_norm.cpp`.
unsafe extern "C" {
    fn kinglet_rms_norm(x: *const C_tensor, gain: *const C_tensor, eps: f64, out: *mut *mut C_tensor) -> *mut c_char;
}

// `shim/optimizer.cpp`.
unsafe extern "C" {
    fn kinglet_adamw(
        weights: *const *const C_tensor,
        gradients: *const *const C_tensor,
        first: *const *const C_tensor,
        second: *const *const C_tensor,
        count: usize,
        step: i64,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    fn kinglet_adafactor(
        weight: *const C_tensor,
        gradient: *const C_tensor,
        rows: *const C_tensor,
        columns: *const C_tensor,
        keep: f64,
        lr: f64,
        weight_decay: f64,
        eps_gradient: f64,
        eps_weight: f64,
        clip: f64,
    ) -> *mut c_char;
    fn kinglet_flush_subnormal(flush: bool) -> bool;
}

// `shim/world.cpp`.
unsafe extern "C" {
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

/// Converts a function's result: null, or a message.
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

/// Drops the gradient of a leaf, so that the next backward pass hands over its own instead of adding to zeros.
///
/// # Errors
/// libtorch's message if the tensor is undefined.
pub(crate) fn clear_gradient(tensor: &Tensor) -> Result<(), String> {
    // SAFETY: the tensor outlives the call, which drops its reference to the gradient; tensors that share the gradient keep it
    // alive.
    unsafe { answer(kinglet_gradient_clear(tensor.as_ptr())) }
}

/// Drops elements of an f32 tensor on the CPU with probability `p` and scales the others by `1 / (1 − p)`.
///
/// # Errors
/// libtorch's message if the tensor is of another kind or device, or `p` not in `[0, 1)`.
pub(crate) fn dropout(x: &Tensor, p: f64) -> Result<Tensor, String> {
    let mut out = null_mut();
    // SAFETY: the tensor outlives the call; `out` points to a pointer, which is written when null is returned: a tensor that is
    // this caller's.
    unsafe {
        answer(kinglet_dropout(x.as_ptr(), p, &mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Returns whether libtorch multiplies matrices by oneDNN, so that [`linear`] can be called.
pub(crate) fn has_onednn() -> bool {
    // SAFETY: it takes nothing and throws nothing.
    unsafe { kinglet_has_onednn() }
}

/// Returns `x · weightᵀ + bias` by oneDNN, of f32 tensors `[.., C]`, `[F, C]` and `[F]` on the CPU, none of them empty: `[.., F]`.
///
/// # Errors
/// libtorch's message if the tensors are of another kind, device or shape, or there is no oneDNN.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, String> {
    let mut out = null_mut();
    let bias = bias.map_or(null(), |bias| bias.as_ptr());
    // SAFETY: the tensors outlive the call, and `bias` may be null; `out` points to a pointer, which is written when null is returned: a
    // tensor that is this caller's.
    unsafe {
        answer(kinglet_linear(x.as_ptr(), weight.as_ptr(), bias, &mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Divides the rows of an f32 tensor `[.., C]` on the CPU by their root mean square, `sqrt(mean(x²) + eps)`, and multiplies them by `gain`, `[C]`.
///
/// # Errors
/// libtorch's message if the tensors are of another kind or device, or their widths differ.
pub(crate) fn rms_norm(x: &Tensor, gain: &Tensor, eps: f64) -> Result<Tensor, String> {
    let mut out = null_mut();
    // SAFETY: the tensors outlive the call; `out` points to a pointer, which is written when null is returned: a tensor that is this
    // caller's.
    unsafe {
        answer(kinglet_rms_norm(x.as_ptr(), gain.as_ptr(), eps, &mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Hyper-parameters of [`adamw`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWStep {
    /// Steps with this one.
    pub step: i64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moments.
    pub beta1: f64,
    /// Decay of the second moments.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moments.
    pub eps: f64,
}

/// Weight, gradient, first moment and second moment.
pub(crate) type AdamWWeight<'a> = [&'a Tensor; 4];

/// Takes one step of AdamW in place on f32 weights.
///
/// # Errors
/// libtorch's message if the tensors differ in shape, kind or device.
pub(crate) fn adamw(weights: &[AdamWWeight<'_>], step: AdamWStep) -> Result<(), String> {
    let column = |i: usize| -> Vec<*const C_tensor> { weights.iter().map(|row| row[i].as_ptr()).collect() };
    let [w, g, m, v] = [0, 1, 2, 3].map(column);
    let AdamWStep { step, lr, beta1, beta2, weight_decay, eps } = step;
    let count = weights.len();
    let [w, g, m, v] = [&w, &g, &m, &v].map(|column| column.as_ptr());
    // SAFETY: each pointer leads to `count` tensors, which outlive the call; the shim checks what libtorch does not.
    unsafe { answer(kinglet_adamw(w, g, m, v, count, step, lr, beta1, beta2, weight_decay, eps)) }
}

/// Hyper-parameters of [`adafactor`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdafactorStep {
    /// Share of the second moment that stays.
    pub keep: f64,
    /// Learning rate, relative to the size of the weight.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to squared gradients.
    pub eps_gradient: f64,
    /// Minimum root mean square of a weight that a step is relative to.
    pub eps_weight: f64,
    /// Updates with a larger root mean square are scaled down to it.
    pub clip: f64,
}

/// Takes one step of Adafactor in place on a weight `[R, C]` on the CPU. `rows` and `columns` are the factored second moment, `[R]` and
/// `[C]`; without `columns`, `rows` is the whole one. All are f32 and contiguous.
///
/// # Errors
/// libtorch's message if the tensors differ in shape, kind or device.
pub(crate) fn adafactor(
    weight: &Tensor,
    gradient: &Tensor,
    rows: &Tensor,
    columns: Option<&Tensor>,
    step: AdafactorStep,
) -> Result<(), String> {
    let AdafactorStep { keep, lr, weight_decay, eps_gradient, eps_weight, clip } = step;
    let columns = columns.map_or(std::ptr::null(), |columns| columns.as_ptr());
    let (weight, gradient, rows) = (weight.as_ptr(), gradient.as_ptr(), rows.as_ptr());
    // SAFETY: the tensors outlive the call, which checks their shapes, kinds and devices; null stands for no columns.
    unsafe {
        answer(kinglet_adafactor(
            weight,
            gradient,
            rows,
            columns,
            keep,
            lr,
            weight_decay,
            eps_gradient,
            eps_weight,
            clip,
        ))
    }
}

/// Makes this thread, and those it starts later, take subnormal numbers for zero. Returns whether the processor can.
pub fn flush_subnormal() -> bool {
    // SAFETY: sets a control register of this thread.
    unsafe { kinglet_flush_subnormal(true) }
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
    /// Prefix of all keys in the store.
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
    /// Joins the others; returns once all are connected.
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

    /// Sums `tensor`, contiguous and f32, over all processes, in place.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<(), String> {
        // SAFETY: the world lives until `drop`, and no other call uses it meanwhile, as `self` stays in one thread; the
        // tensor outlives the call, which waits until it is done with it. The shim refuses another kind or layout.
        unsafe { answer(kinglet_world_all_reduce(self.0.as_ptr(), tensor.as_ptr())) }
    }

    /// Copies the value of `tensor`, contiguous bytes, from process `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: i32) -> Result<(), String> {
        // SAFETY: as in `all_reduce`.
        unsafe { answer(kinglet_world_broadcast(self.0.as_ptr(), tensor.as_ptr(), root)) }
    }

    /// Waits until all processes have called it.
    pub fn barrier(&self) -> Result<(), String> {
        // SAFETY: the world lives until `drop`, and is used by this thread alone.
        unsafe { answer(kinglet_world_barrier(self.0.as_ptr())) }
    }

    /// Closes the connections, so that calls of the others fail instead of waiting. Every later call fails.
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

/// A closure over tensors as kept by the shim; autograd may run and drop it on a thread of its own.
type Shared<F> = Mutex<F>;

// `shim/checkpoint.cpp`.
unsafe extern "C" {
    fn kinglet_checkpoint(
        data: *mut c_void,
        call: CallClosure,
        drop: DropClosure,
        inputs: *const *const C_tensor,
        count: usize,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

type CallClosure = unsafe extern "C" fn(*mut c_void, *const *const C_tensor, usize, *mut *mut c_char) -> *mut C_tensor;
type DropClosure = unsafe extern "C" fn(*mut c_void);

/// Calls the closure on the `count` tensors of `inputs`; returns null and a message if it panics.
///
/// # Safety
/// `data` is a live `Shared<F>`, `inputs` points to `count` tensors, `error` to a pointer.
unsafe extern "C" fn call_closure<F: Fn(&[Tensor]) -> Tensor + Send>(
    data: *mut c_void,
    inputs: *const *const C_tensor,
    count: usize,
    error: *mut *mut c_char,
) -> *mut C_tensor {
    let run = || {
        // SAFETY: the caller's promise; the mutex is only borrowed.
        let function = unsafe { &*data.cast::<Shared<F>>() };
        // A closure that panicked once may be called again: its state is only read.
        let function = function.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's promise; each tensor is copied (the handle alone), so that none is freed twice.
        let inputs: Vec<Tensor> =
            (0..count).map(|i| unsafe { Tensor::clone_from_ptr((*inputs.add(i)).cast_mut()) }).collect();
        // The caller takes ownership of the tensor.
        ManuallyDrop::new(function(&inputs)).as_mut_ptr()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let text = CString::new(said.unwrap_or("a panic").replace('\0', " ")).unwrap_or_default();
        // SAFETY: the text ends with NUL and outlives the call, which copies it; `error` is the caller's promise.
        unsafe { *error = kinglet_shim_copy(text.as_ptr()) };
        null_mut()
    })
}

/// Drops the closure.
///
/// # Safety
/// `data` is a `Shared<F>` from `Box::into_raw`, and is not used any more.
unsafe extern "C" fn drop_closure<F>(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let closure = unsafe { Box::from_raw(data.cast::<Shared<F>>()) };
    // A panic in a destructor is reported on stderr; nobody can handle it.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(closure)));
}

/// Runs `function(inputs)`; autograd recomputes its intermediate results when it needs them.
pub(crate) fn checkpoint<F>(function: F, inputs: &[Tensor]) -> Result<Tensor, String>
where
    F: Fn(&[Tensor]) -> Tensor + Send + 'static,
{
    let data = Box::into_raw(Box::new(Shared::new(function))).cast::<c_void>();
    let pointers: Vec<*const C_tensor> = inputs.iter().map(Tensor::as_ptr).collect();
    let mut out = null_mut();
    // SAFETY: `data` is a `Shared<F>`, which the shim takes over, calls and drops by the two functions made for this `F`; as
    // `F` is `Send` and without borrows, it may do so later and on another thread, one at a time because of the mutex. The
    // pointers are those of tensors that outlive the call; `out` points to a pointer, written when null is returned.
    unsafe {
        let (call, drop) = (call_closure::<F>, drop_closure::<F>);
        answer(kinglet_checkpoint(data, call, drop, pointers.as_ptr(), pointers.len(), &mut out))?;
    }
    if out.is_null() {
        return Err("no tensor was made".to_owned());
    }
    // SAFETY: made by `new` for this caller alone.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// The shim's `Meter`, an opaque pointer.
#[repr(C)]
struct CMeter {
    _private: [u8; 0],
}

// `shim/memory.cpp`.
unsafe extern "C" {
    fn kinglet_meter_new(device: i32, out: *mut *mut CMeter) -> *mut c_char;
    fn kinglet_meter_peak(meter: *const CMeter, bytes: *mut i64) -> *mut c_char;
    fn kinglet_meter_free(meter: *mut CMeter);
    fn kinglet_set_tf32(allowed: bool) -> *mut c_char;
    fn kinglet_tf32(allowed: *mut bool) -> *mut c_char;
}

/// Tracks the memory of tensors. Not `Send`: on the CPU it belongs to the thread that created it.
#[derive(Debug)]
pub(crate) struct Meter(NonNull<CMeter>);

impl Meter {
    /// Starts at zero; `device` is the number of a CUDA device, or below 0 for the CPU.
    pub fn start(device: i32) -> Result<Self, String> {
        let mut meter = null_mut();
        // SAFETY: `out` points to a pointer, written when null is returned.
        unsafe { answer(kinglet_meter_new(device, &mut meter)) }?;
        NonNull::new(meter).map(Meter).ok_or_else(|| "no meter was made".to_owned())
    }

    /// Returns the peak in bytes so far.
    pub fn peak(&self) -> Result<i64, String> {
        let mut bytes = 0;
        // SAFETY: the meter lives until `drop`; `bytes` is written when null is returned.
        unsafe { answer(kinglet_meter_peak(self.0.as_ptr(), &mut bytes)) }?;
        Ok(bytes)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // SAFETY: made by `kinglet_meter_new`, freed here alone, on the same thread.
        unsafe { kinglet_meter_free(self.0.as_ptr()) }
    }
}

/// Sets whether CUDA's f32 matrix products and convolutions may round their inputs to TF32.
pub(crate) fn set_tf32(allowed: bool) -> Result<(), String> {
    // SAFETY: takes a number alone.
    unsafe { answer(kinglet_set_tf32(allowed)) }
}

/// Returns the value of [`set_tf32`].
pub(crate) fn tf32() -> Result<bool, String> {
    let mut allowed = false;
    // SAFETY: `allowed` is written when null is returned.
    unsafe { answer(kinglet_tf32(&mut allowed)) }?;
    Ok(allowed)
}
