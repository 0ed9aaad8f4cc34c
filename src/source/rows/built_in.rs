//! A vendor that is built in.

use std::sync::{Arc, OnceLock};

use crate::source::{Described, Vendor, description::Description};

/// A built-in vendor. It is made when it is first needed: a cold start needs only the configured vendors.
pub struct BuiltIn {
    pub name: &'static str,
    make: Make,
    made: OnceLock<Arc<dyn Vendor>>,
}

enum Make {
    Described(fn() -> Description),
    Coded(fn() -> Arc<dyn Vendor>),
}

impl BuiltIn {
    const fn new(name: &'static str, make: Make) -> Self {
        Self { name, make, made: OnceLock::new() }
    }

    pub fn vendor(&self) -> &Arc<dyn Vendor> {
        self.made.get_or_init(|| match self.make {
            Make::Described(describe) => {
                Arc::new(Described(Description { name: self.name.into(), ..describe() }))
            }
            Make::Coded(make) => make(),
        })
    }
}

/// A vendor that a description fits. The row has its name.
pub const fn row(name: &'static str, describe: fn() -> Description) -> BuiltIn {
    BuiltIn::new(name, Make::Described(describe))
}

/// A vendor with a file of its own, whose description repeats the name.
pub const fn coded(name: &'static str, make: fn() -> Arc<dyn Vendor>) -> BuiltIn {
    BuiltIn::new(name, Make::Coded(make))
}
