//! Points at which a process kills itself when a test asks for that. They are compiled into the tests of this crate and into nothing
//! else: there is no feature that turns them on.

/// Names a point. A test runs into each of them: `faults/tests.rs` reads their names from the sources.
macro_rules! fault_point {
    ($name:literal) => {
        #[cfg(test)]
        $crate::faults::armed::reach($name);
    };
}

#[cfg(test)]
pub(crate) mod armed;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod process;
#[cfg(test)]
mod tests;
