//! Events for what can't be returned to a caller. Without the `tracing` feature they vanish.

#[cfg(feature = "tracing")]
macro_rules! warning {
    ($($event:tt)*) => { ::tracing::warn!($($event)*) };
}

#[cfg(not(feature = "tracing"))]
macro_rules! warning {
    (%$value:ident, $($event:tt)*) => {{
        let _ = &$value;
    }};
}

pub(crate) use warning;
