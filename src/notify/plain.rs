#![allow(unsafe_code)]

/// A type that any bytes are a value of, so that it can be read from a target that may be malicious.
///
/// # Safety
///
/// Every bit pattern must be a valid value, and there must be no padding that a read could leave uninitialised
/// (`#[repr(C)]` structs of integers without holes qualify; `bool`, `char`, references and enums don't).
///
/// # Examples
///
/// ```
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// struct Timespec { seconds: i64, nanoseconds: i64 }
///
/// // SAFETY: two integers without padding; any bytes are a value.
/// unsafe impl asm_tracer::Plain for Timespec {}
/// ```
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($integer:ty)*) => {
        // SAFETY: every bit pattern of an integer or float is a value, and it has no padding.
        $(unsafe impl Plain for $integer {})*
    };
}
plain!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

// SAFETY: an array has no padding beyond that of its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Lets `fill` write the bytes of a `T`; returns it if `fill` succeeded.
pub(crate) fn filled<T: Plain, E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<T, E> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the bytes are initialised (with zeros), in bounds, and borrowed only here.
    let bytes = unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    fill(bytes)?;
    // SAFETY: every bit pattern is a value of a `Plain` type.
    Ok(unsafe { value.assume_init() })
}
