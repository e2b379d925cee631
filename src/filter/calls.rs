use syscalls::Sysno;

/// One system call or several: a [`Sysno`], a number, or an array, slice or vector of these.
///
/// It can't be implemented for other types.
pub trait Syscalls: sealed::Sealed {
    #[doc(hidden)]
    fn numbers(&self) -> Vec<i64>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Sysno {}
    impl Sealed for i64 {}
    impl<T: Sealed, const N: usize> Sealed for [T; N] {}
    impl<T: Sealed> Sealed for [T] {}
    impl<T: Sealed> Sealed for Vec<T> {}
    impl<T: Sealed + ?Sized> Sealed for &T {}
}

impl Syscalls for Sysno {
    fn numbers(&self) -> Vec<i64> {
        vec![self.id().into()]
    }
}

impl Syscalls for i64 {
    fn numbers(&self) -> Vec<i64> {
        vec![*self]
    }
}

impl<T: Syscalls, const N: usize> Syscalls for [T; N] {
    fn numbers(&self) -> Vec<i64> {
        self.as_slice().numbers()
    }
}

impl<T: Syscalls> Syscalls for [T] {
    fn numbers(&self) -> Vec<i64> {
        self.iter().flat_map(T::numbers).collect()
    }
}

impl<T: Syscalls> Syscalls for Vec<T> {
    fn numbers(&self) -> Vec<i64> {
        self.as_slice().numbers()
    }
}

impl<T: Syscalls + ?Sized> Syscalls for &T {
    fn numbers(&self) -> Vec<i64> {
        (**self).numbers()
    }
}
