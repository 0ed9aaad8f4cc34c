//! The names of destinations that a store keeps, as far as this process has added them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::StoreError;
use crate::route::Route;

/// Time after which a name is added again, so that a store that was emptied gets it back.
const AGAIN: Duration = Duration::from_secs(600);

/// The destinations whose lists every store reads, whether or not they were added.
pub(super) const ALWAYS: [Route; 2] = [Route::GCP, Route::AWS];

/// The names that this process has added to a store, each with the time.
#[derive(Default)]
pub(super) struct Named(Mutex<HashMap<Route, Instant>>);

impl Named {
    /// Returns whether a name must be added before the list of its destination gets an event.
    pub fn lacks(&self, route: Route) -> bool {
        let named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = named.get(&route).is_some_and(|at| at.elapsed() < AGAIN);
        !is_there && !ALWAYS.contains(&route)
    }

    /// Handles the end of an addition.
    ///
    /// # Errors
    /// Fails if the name could not be added, and this process has not added it before.
    pub fn added(&self, route: Route, result: Result<(), StoreError>) -> Result<(), StoreError> {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) if !named.contains_key(&route) => return Err(error),
            // In a cluster, the server of the names may be down while that of the event works.
            Err(error) => {
                tracing::warn!(%route, %error, "a destination's name was not added again")
            }
            Ok(()) => {}
        }
        named.insert(route, Instant::now());
        Ok(())
    }
}

/// Returns the destinations that may have events, from the names that a store keeps. A text that is
/// no name is left out.
pub(super) fn destinations<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Route> {
    let mut routes: Vec<_> = names.into_iter().filter_map(|name| name.parse().ok()).collect();
    routes.extend(ALWAYS);
    routes.sort();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_once_in_a_while() {
        let (named, eu) = (Named::default(), "eu".parse().unwrap());
        assert!(named.lacks(eu) && !named.lacks(Route::GCP) && !named.lacks(Route::AWS));
        let down = || Err(StoreError::Failed("down".into()));
        assert!(named.added(eu, down()).is_err() && named.lacks(eu));
        assert!(named.added(eu, Ok(())).is_ok() && !named.lacks(eu));
        named.0.lock().unwrap().insert(eu, Instant::now().checked_sub(AGAIN).unwrap());
        assert!(named.lacks(eu));
        assert!(named.added(eu, down()).is_ok() && !named.lacks(eu));
    }

    #[test]
    fn the_two_destinations_without_a_table_are_always_among_them() {
        assert_eq!(destinations([]), [Route::AWS, Route::GCP]);
        let eu = "eu".parse().unwrap();
        assert_eq!(destinations(["gcp", "eu", "No Name"]), [Route::AWS, eu, Route::GCP]);
    }
}
