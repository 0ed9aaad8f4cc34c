//! The events that were answered at once, and the lists of what is due.
//!
//! In a cluster, a list is in another slot than an event. It is spread over sixteen lists by the
//! first digit of the key, so that no server has all of it. An entry is written before its event, and
//! moved or removed after it. So an entry may be too early, or lead to nothing, but no event is
//! missing from the list. A look at such an entry corrects it ([`LOOKED`]). An acceptance looks at the
//! event before it writes the entry, so that a duplicate writes none.

use std::{sync::PoisonError, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::{
    super::{
        Acceptance, Accepted, Details, Due, Lease, Postponed, Settled, StoreError, Take, Taken,
        UNREADABLE_PAUSE, named, new_owner, stored,
    },
    Redis,
    fields::Fields,
    millis, named_digest,
    scripts::{ACCEPT, ENLIST, LOOK, LOOKED, POSTPONE, PUT_OFF, RELIST, TAKE},
};
use crate::{delivery::Delivery, fault, key::Key, plan::Plan, route::Route};

const INBOX: &str = "webhook:due";

/// The names of the destinations that have lists.
const DESTINATIONS: &str = "webhook:destinations";

/// Shortest time between the two looks that remove an entry without an event. It is longer than an
/// acceptance takes from its first write to its second.
const SECOND_LOOK: Duration = Duration::from_secs(60);

/// An entry whose time is wrong by less than this is not corrected before its event is taken. The
/// error is the difference between the clocks of this machine and of the server.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

impl Redis {
    /// Returns the name of the list that an event of a destination is on.
    pub(super) fn inbox_of(&self, route: Route, key: &Key) -> String {
        if self.link.is_cluster {
            format!("{INBOX}:{route}:{:x}", key.shard())
        } else {
            format!("{INBOX}:{route}")
        }
    }

    pub(super) async fn accept_event(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        now: DateTime<Utc>,
        due: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Accepted, StoreError> {
        let (key, owner, deadline) = (plan.key, new_owner(), self.link.deadline());
        self.name(plan.route, deadline).await?;
        if self.link.is_cluster {
            // A duplicate must not leave an entry.
            let arguments = [self.time(now), owner.clone(), named_digest(plan)];
            let arguments = arguments.each_ref().map(String::as_bytes);
            let mut fields = self.script(&LOOK, &key, &[], &arguments, deadline).await?;
            let word = fields.text()?;
            if word.as_deref() != Some("free") {
                let claim = self.taken(plan, fields, word.as_deref(), now, deadline).await?;
                return Ok(Accepted::Taken(claim.into()));
            }
            let (entry, look) = (key.to_string(), millis(look));
            let (list, arguments) = ([self.inbox_of(plan.route, &key)], [&entry, &look]);
            let arguments = arguments.map(|text| text.as_bytes());
            self.script_on(&ENLIST, &list, &arguments, deadline).await?;
        }
        fault::point("before acceptance is stored");
        let texts = [
            self.time(now),
            owner,
            stored::to_json(&Details::new(plan, now)),
            named_digest(plan),
            stored::to_json(&Acceptance::new(now, plan, delivery)),
            (due - now).num_milliseconds().max(0).to_string(),
            stored::delivery_head(delivery),
        ];
        let pause_of_list = (look - now).num_milliseconds().max(0).to_string();
        let mut arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        arguments.extend([&delivery.body[..], pause_of_list.as_bytes()]);
        let mut fields = self.script(&ACCEPT, &key, &[plan.route], &arguments, deadline).await?;
        let word = fields.text()?;
        if word.as_deref() != Some("stored") {
            let claim = self.taken(plan, fields, word.as_deref(), now, deadline).await?;
            return Ok(Accepted::Taken(claim.into()));
        }
        let details: Option<Details> = fields.json()?;
        let route = details.map_or(plan.route, |details| details.route);
        let listed = fields.time()?.unwrap_or(look);
        // The server's clock may differ from this one.
        let is_near = (listed - look).abs() < CLOCK_TOLERANCE;
        if self.link.is_cluster && (route != plan.route || !is_near) {
            self.name(route, deadline).await?;
            self.enlist(route, &key, &millis(listed), deadline).await?;
        }
        if self.link.is_cluster && route != plan.route {
            // The event is on the list of its own destination.
            self.unlist(&self.inbox_of(plan.route, &key), &key, Some(look), deadline).await;
        }
        self.unlist_letter(&key, fields.time()?, deadline).await;
        Ok(Accepted::Stored { route })
    }

    pub(super) async fn due_events(
        &self,
        route: Route,
        by_now: Option<DateTime<Utc>>,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.use_list(route);
        let to = match by_now {
            None => "+inf".to_owned(),
            Some(now) if self.is_callers_time => millis(now),
            Some(_) => {
                let time = redis::cmd("TIME");
                let (seconds, micros): (i64, i64) =
                    self.command(&time, self.link.deadline()).await?;
                (seconds * 1000 + micros / 1000).to_string()
            }
        };
        let after = after.map(|Due { at, key }| (at, key));
        let lists: Vec<_> = match self.link.is_cluster {
            false => vec![format!("{INBOX}:{route}")],
            true => (0..Key::SHARDS).map(|shard| format!("{INBOX}:{route}:{shard:x}")).collect(),
        };
        let due = if by_now.is_some() {
            self.merged_from_any(&lists, after, &to, limit).await?
        } else {
            self.merged(&lists, after, &to, limit).await?
        };
        Ok(due.into_iter().map(|(at, key)| Due { at, key }).collect())
    }

    pub(super) async fn relist_event(
        &self,
        route: Route,
        entry: Due,
        now: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Option<Due>, StoreError> {
        let Due { at, key } = entry;
        let pause = (look - now).num_milliseconds().max(0).to_string();
        let arguments = [self.time(now), key.to_string(), millis(at), pause];
        let (list, arguments) = ([self.inbox_of(route, &key)], arguments.each_ref());
        let arguments = arguments.map(String::as_bytes);
        let mut fields = self.script_on(&RELIST, &list, &arguments, self.link.deadline()).await?;
        match fields.text()?.as_deref() {
            Some("moved") => Ok(fields.time()?.map(|at| Due { at, key })),
            _ => Ok(None),
        }
    }

    pub(super) async fn take_event(
        &self,
        key: &Key,
        early: bool,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Take, StoreError> {
        let (owner, deadline) = (new_owner(), self.link.deadline());
        let lease = (until - now).num_milliseconds().max(1);
        let early = if early { "early" } else { "" };
        let arguments = [self.time(now), owner.clone(), lease.to_string(), early.to_owned()];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let mut fields = self.script(&TAKE, key, &self.used(), &arguments, deadline).await?;
        fault::point("after take writes");
        match fields.text()?.as_deref() {
            Some("won") => {
                let listed = fields.text()?.unwrap_or_default();
                let taken = match read_taken(fields, *key, owner.clone(), until) {
                    Ok(taken) => taken,
                    Err(error) => {
                        let put_off = self.put_off(key, &owner, now, deadline).await;
                        warn_of_stale_entry(key, put_off);
                        return Err(error);
                    }
                };
                if self.link.is_cluster {
                    // If this fails, the entry is too early, and the next look corrects it.
                    let route = taken.lease.details.route;
                    warn_of_stale_entry(key, self.enlist(route, key, &listed, deadline).await);
                }
                Ok(Take::Won(Box::new(taken)))
            }
            Some("not due") => {
                let listed = fields.text()?.unwrap_or_default();
                let due = fields.end(now)?.unwrap_or(now);
                warn_of_stale_entry(key, self.looked(key, &listed, now, deadline).await);
                Ok(Take::NotDue(due))
            }
            _ => {
                warn_of_stale_entry(key, self.looked(key, "", now, deadline).await);
                Ok(Take::Gone)
            }
        }
    }

    /// Gives back an event that was taken and cannot be read, so that it is not looked at again soon.
    async fn put_off(
        &self,
        key: &Key,
        owner: &str,
        now: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let pause = UNREADABLE_PAUSE.as_millis().to_string();
        let arguments = [self.time(now), owner.to_owned(), pause];
        let arguments = arguments.each_ref().map(String::as_bytes);
        // The destination itself may be unreadable, so all lists are tried. Only one has the entry.
        let routes = self.listed_destinations().await?;
        let mut fields = self.script(&PUT_OFF, key, &routes, &arguments, deadline).await?;
        if fields.settled()? == Settled::Stored && self.link.is_cluster {
            let listed = fields.text()?.unwrap_or_default();
            for route in routes {
                self.enlist_with(&["XX"], route, key, &listed, deadline).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn postpone_event(
        &self,
        lease: &Lease,
        postponed: &Postponed,
    ) -> Result<Settled, StoreError> {
        let Postponed { at, due, look, accepted, attempts } = postponed;
        let deadline = self.link.deadline();
        let arguments = [
            self.time(*at),
            lease.owner.clone(),
            // An event that stays due has a time before now.
            (*due - *at).num_milliseconds().to_string(),
            stored::to_json(accepted),
            stored::to_json(attempts),
            (*look - *at).num_milliseconds().max(0).to_string(),
        ];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let mut fields = self
            .script(&POSTPONE, &lease.key, &[lease.details.route], &arguments, deadline)
            .await?;
        fault::point("after postpone writes");
        let settled = fields.settled()?;
        if settled == Settled::Stored && self.link.is_cluster {
            let listed = fields.text()?.unwrap_or_default();
            self.enlist(lease.details.route, &lease.key, &listed, deadline).await?;
        }
        Ok(settled)
    }

    /// Removes the entry of that time in a cluster. A single server has removed it already.
    pub(super) async fn unlist_due(
        &self,
        key: &Key,
        route: Option<Route>,
        due: Option<DateTime<Utc>>,
        deadline: Instant,
    ) {
        if !self.link.is_cluster {
            return;
        }
        let routes = match route {
            Some(route) => vec![route],
            // The event has lost its details. An entry that stays is removed by two looks.
            None => self.listed_destinations().await.unwrap_or_default(),
        };
        for route in routes {
            self.unlist(&self.inbox_of(route, key), key, due, deadline).await;
        }
    }

    /// Adds the name of a destination before an event is put on its list.
    pub(super) async fn name(&self, route: Route, deadline: Instant) -> Result<(), StoreError> {
        self.use_list(route);
        if self.named.lacks(route) {
            let mut addition = redis::cmd("SADD");
            addition.arg(DESTINATIONS).arg(route.as_str());
            let added = self.command::<u32>(&addition, deadline).await.map(drop);
            self.named.added(route, added)?;
        }
        Ok(())
    }

    /// Returns the destinations that may have events.
    pub(super) async fn listed_destinations(&self) -> Result<Vec<Route>, StoreError> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(DESTINATIONS);
        let names: Vec<String> = self.command(&members, self.link.deadline()).await?;
        Ok(named::destinations(names.iter().map(String::as_str)))
    }

    /// Returns the destinations whose lists this process has used.
    pub(super) fn used(&self) -> Vec<Route> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().copied().collect()
    }

    fn use_list(&self, route: Route) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(route);
    }

    /// Sets an entry of a list in a cluster.
    async fn enlist(
        &self,
        route: Route,
        key: &Key,
        time: &str,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        self.enlist_with(&[], route, key, time, deadline).await
    }

    /// Sets an entry as [`Redis::enlist`] does, with options of ZADD.
    async fn enlist_with(
        &self,
        options: &[&str],
        route: Route,
        key: &Key,
        time: &str,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let mut addition = redis::cmd("ZADD");
        addition.arg(self.inbox_of(route, key)).arg(options).arg(time).arg(key.to_string());
        self.command::<u32>(&addition, deadline).await.map(drop)
    }

    /// Corrects the entries of an event that is not due before `listed`, or not in the inbox.
    async fn looked(
        &self,
        key: &Key,
        listed: &str,
        now: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let pause = SECOND_LOOK.max(self.link.timeout() * 2).as_millis();
        let arguments = [self.time(now), key.to_string(), pause.to_string(), listed.to_owned()];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let lists: Vec<_> =
            self.used().into_iter().map(|route| self.inbox_of(route, key)).collect();
        // In a cluster, each list may be on another server.
        let at_once = if self.link.is_cluster { 1 } else { lists.len() };
        let looks = lists.chunks(at_once);
        let looks = looks.map(|lists| self.script_on(&LOOKED, lists, &arguments, deadline));
        try_join_all(looks).await.map(drop)
    }
}

/// Reads the reply to a take that was won. Its first field, the time in the list, was read before.
fn read_taken(
    mut fields: Fields,
    key: Key,
    owner: String,
    until: DateTime<Utc>,
) -> Result<Taken, StoreError> {
    let missing = || StoreError::corrupt(format!("{key} has lost a part"));
    let accepted = fields.json()?.ok_or_else(missing)?;
    let details = fields.json()?.ok_or_else(missing)?;
    let attempts = fields.attempts()?;
    let head = fields.text()?.ok_or_else(missing)?;
    let delivery = stored::delivery(&head, fields.bytes().ok_or_else(missing)?)?;
    let lease = Lease { key, owner, until, details, attempts };
    Ok(Taken { lease, accepted, delivery })
}

/// Logs that an entry could not be corrected. In a cluster, the server of the list may be down while
/// the server of the event works, so the event itself must not wait for the list.
fn warn_of_stale_entry(key: &Key, corrected: Result<(), StoreError>) {
    if let Err(error) = corrected {
        tracing::warn!(%key, %error, "a list has a stale entry");
    }
}
