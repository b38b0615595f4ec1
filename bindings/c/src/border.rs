//! The boundary: pointers are checked as far as possible, panics end here, and the last error is kept.

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;

use crate::status::{Error, Status};

/// Runs the body of a function, keeps its message and returns its status. A panic becomes [`Status::Internal`].
#[cfg(feature = "std")]
pub(crate) fn border(body: impl FnOnce() -> Result<(), Error>) -> Status {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // What a panic leaves half done is either dropped with the call, or an engine, which the next reset repairs.
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(Status::Internal.into()));
    match result {
        Ok(()) => Status::Ok,
        Err(Error { status, message }) => {
            last::keep(message);
            status
        }
    }
}

/// Runs the body of a function and returns its status.
#[cfg(not(feature = "std"))]
#[inline]
pub(crate) fn border(body: impl FnOnce() -> Result<(), Error>) -> Status {
    body().map_or_else(|error| error.status, |()| Status::Ok)
}

/// Returns the maximum number of contiguous elements of type `T`.
const fn most<T>() -> usize {
    isize::MAX as usize / size_of::<T>()
}

fn check<T>(pointer: *const T) -> Result<(), Error> {
    if pointer.is_null() {
        return Err(Status::NullPointer.into());
    }
    if pointer.is_aligned() { Ok(()) } else { Err(Status::Misaligned.into()) }
}

/// Returns `count` elements; null is allowed if there are none.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to `count` initialized elements that nobody writes during the
/// call.
pub(crate) unsafe fn slice<'a, T: Copy>(pointer: *const T, count: usize) -> Result<&'a [T], Error> {
    if pointer.is_null() && count == 0 {
        return Ok(&[]);
    }
    check(pointer)?;
    if count > most::<T>() {
        return Err(Status::WrongLength.into());
    }
    // SAFETY: checked above; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// Returns `count` elements for writing, set to zero first: they need not be initialized.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to `count` elements that nobody else uses during the call. All
/// bits zero are a valid `T`.
pub(crate) unsafe fn slice_mut<'a, T: Copy>(pointer: *mut T, count: usize) -> Result<&'a mut [T], Error> {
    if count == 0 {
        return Ok(&mut []);
    }
    check(pointer)?;
    if count > most::<T>() {
        return Err(Status::WrongLength.into());
    }
    // SAFETY: checked above; the rest is the caller's promise.
    unsafe {
        pointer.write_bytes(0, count);
        Ok(core::slice::from_raw_parts_mut(pointer, count))
    }
}

/// Returns the place of a result.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to memory for a `T` that nobody else uses during the call.
pub(crate) unsafe fn place<'a, T>(pointer: *mut T) -> Result<&'a mut MaybeUninit<T>, Error> {
    check(pointer)?;
    // SAFETY: checked above; the rest is the caller's promise.
    Ok(unsafe { &mut *pointer.cast::<MaybeUninit<T>>() })
}

/// Returns the target of a handle or a pointer to an argument.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to a `T` that nobody changes during the call.
pub(crate) unsafe fn get<'a, T>(pointer: *const T) -> Result<&'a T, Error> {
    check(pointer)?;
    // SAFETY: checked above; the rest is the caller's promise.
    Ok(unsafe { &*pointer })
}

/// Returns the target of a handle for changing.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to a `T` that nobody else uses during the call.
pub(crate) unsafe fn get_mut<'a, T>(pointer: *mut T) -> Result<&'a mut T, Error> {
    check(pointer)?;
    // SAFETY: checked above; the rest is the caller's promise.
    Ok(unsafe { &mut *pointer })
}

/// Returns a string that ends with a zero byte.
///
/// # Safety
/// A pointer that is not null points to a zero byte or to bytes before one, which nobody writes during the call.
pub(crate) unsafe fn string<'a>(pointer: *const c_char) -> Result<&'a CStr, Error> {
    check(pointer)?;
    // SAFETY: not null; the rest is the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// Returns an error unless `count` is the number of labels.
pub(crate) fn one_a_label(count: usize, labels: usize) -> Result<(), Error> {
    if count == labels {
        return Ok(());
    }
    Err(Error::new(Status::WrongLength, format_args!("the model has {labels} labels, room for {count} was given")))
}

/// Returns an error unless `count` is the number of a vector's values.
pub(crate) fn one_a_value(count: usize, dimension: usize) -> Result<(), Error> {
    if count == dimension {
        return Ok(());
    }
    let detail = format_args!("the model's vectors have {dimension} values, room for {count} was given");
    Err(Error::new(Status::WrongLength, detail))
}

/// Returns an error if `count` elements at `a` and as many at `b` overlap.
pub(crate) fn apart<T>(a: *const T, b: *const T, count: usize) -> Result<(), Error> {
    let bytes = count.saturating_mul(size_of::<T>());
    if !a.is_null() && !b.is_null() && a.addr().abs_diff(b.addr()) < bytes {
        return Err(Error::new(Status::InvalidArgument, "what is read and what is written overlap"));
    }
    Ok(())
}

#[cfg(feature = "std")]
mod last {
    use core::cell::RefCell;
    use core::ffi::c_char;
    use std::ffi::CString;
    use std::string::String;

    std::thread_local! {
        static LAST: RefCell<CString> = RefCell::new(CString::default());
    }

    /// Keeps the message of a failed call.
    pub(super) fn keep(message: String) {
        let mut bytes = message.into_bytes();
        bytes.retain(|&byte| byte != 0);
        let message = CString::new(bytes).unwrap_or_default();
        // A thread that ends has no reader.
        let _ = LAST.try_with(|last| last.replace(message));
    }

    /// Returns the message of the last failed call of this thread, with details; "" if none failed. It stays readable
    /// until the next failed call of this thread, or the end of the thread.
    #[unsafe(no_mangle)]
    pub extern "C" fn kinglet_last_error() -> *const c_char {
        LAST.try_with(|last| last.try_borrow().map_or(c"".as_ptr(), |last| last.as_ptr())).unwrap_or(c"".as_ptr())
    }
}
