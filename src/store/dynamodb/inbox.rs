//! The events that were answered at once.

use std::{fmt::Display, time::Duration};

use aws_sdk_dynamodb::{
    operation::{put_item::PutItemError, update_item::UpdateItemError},
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        Acceptance, Accepted, Details, Due, Lease, Postponed, Record, Settled, StoreError, Take,
        Taken, UNREADABLE_PAUSE, new_owner, stored,
    },
    DynamoDb, TRIES, index,
    item::{
        Item, against, assignment, end_of, is_held_by, millis, optional_string, record, sort_key,
        string, text, time,
    },
    letter::{self, Packed},
};
use crate::{delivery::Delivery, fault, key::Key, plan::Plan, route::Route};

/// Time after which a part that no item refers to is garbage. The item of its event is written soon
/// after the part, or never.
const GARBAGE_AGE: Duration = Duration::from_secs(86_400);

/// Most parts that one sweep looks at.
const SWEPT_AT_ONCE: usize = 1000;

/// An acceptance under way.
struct Acceptor<'a> {
    plan: &'a Plan,
    /// The attributes that locate the delivery.
    delivery: &'a Item,
    /// The event's item as it was before the parts of the delivery were written.
    before: &'a Item,
    owner: &'a str,
    accepted: Acceptance,
    now: DateTime<Utc>,
    due: DateTime<Utc>,
    look: DateTime<Utc>,
}

impl Acceptor<'_> {
    /// Returns the attributes of an accepted event, except its key, details and attempts.
    fn attributes(&self, route: Route) -> Item {
        let mut item = self.delivery.clone();
        item.extend([
            ("held_by".into(), text(self.owner)),
            ("accepted_by".into(), text(self.owner)),
            ("accepted".into(), text(stored::to_json(&self.accepted))),
            ("due".into(), millis(self.due)),
        ]);
        item.extend(index::entry_of(&index::inbox(route), self.look, &self.plan.key));
        item
    }

    /// Returns whether this acceptance has stored an item. A worker may have taken the event since,
    /// and may have failed.
    fn has_stored(&self, item: &Item) -> bool {
        optional_string(item, "accepted_by") == Some(self.owner)
    }

    /// Returns whether an item that nobody holds may be replaced. It may not if this call has
    /// written parts and the item has another owner than before. Then the first try of this call
    /// may have been stored although its answer was lost, and the event may have ended since. If
    /// so, the end of the event has deleted the parts, and this call must not write an item that
    /// refers to them.
    fn may_replace(&self, item: &Item) -> bool {
        !self.delivery.contains_key("parts_at") || self.before.get("held_by") == item.get("held_by")
    }
}

impl DynamoDb {
    /// Deletes the parts of a delivery that no item refers to any more, while there is time.
    pub(super) async fn delete_parts(&self, item: &Item, deadline: Instant) {
        let deletions = letter::delete_parts(self.client().await, &self.table, item);
        if timeout_at(deadline, deletions).await.is_err() {
            tracing::warn!("parts of an old delivery could not be deleted in time");
        }
    }

    pub(super) async fn accept_event(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        [now, due, look]: [DateTime<Utc>; 3],
        deadline: Instant,
    ) -> Result<Accepted, StoreError> {
        let owner = new_owner();
        let Packed { attributes, parts } = Packed::new(&plan.key, &owner, delivery, now)?;
        let mut before = Item::new();
        if !parts.is_empty() {
            // A duplicate must not write parts.
            before = self.item(&plan.key).await?.unwrap_or_default();
            if !before.is_empty()
                && let Some(claim) = against(plan, &before, now)?
            {
                return Ok(Accepted::Taken(claim.into()));
            }
            letter::write(self.client().await, &self.table, parts, "after part").await?;
        }
        fault::point("before acceptance is stored");
        let accepted = Acceptance::new(now, plan, delivery);
        let (delivery, before, owner) = (&attributes, &before, owner.as_str());
        let acceptor = Acceptor { plan, delivery, before, owner, accepted, now, due, look };
        let accepted = self.put_accepted(&acceptor, deadline).await;
        if matches!(accepted, Ok(Accepted::Taken(_))) {
            self.delete_parts(&attributes, deadline).await;
        }
        accepted
    }

    async fn put_accepted(
        &self,
        acceptor: &Acceptor<'_>,
        deadline: Instant,
    ) -> Result<Accepted, StoreError> {
        let Acceptor { plan, now, .. } = *acceptor;
        let mut written = self.insert_accepted(acceptor).await?;
        for _ in 0..TRIES {
            let found = match written {
                Ok(route) => return Ok(Accepted::Stored { route }),
                Err(found) => found,
            };
            if acceptor.has_stored(&found) {
                // The answer to this call's first try was lost.
                let details = record(plan.key, &found, now)?.details;
                let details = details.ok_or_else(|| StoreError::corrupt("no details"))?;
                return Ok(Accepted::Stored { route: details.route });
            }
            let claim = if found.is_empty() { None } else { against(plan, &found, now)? };
            match claim {
                Some(claim) => return Ok(Accepted::Taken(claim.into())),
                None if !acceptor.may_replace(&found) => return Err(StoreError::contended()),
                None if found.is_empty() => written = self.insert_accepted(acceptor).await?,
                None => written = self.accept_over(acceptor, &found, deadline).await?,
            }
        }
        written.map(|route| Accepted::Stored { route }).map_err(|_| StoreError::contended())
    }

    /// Creates the item of an event, in place of a forgotten one. Returns its route, or the item
    /// that prevents it.
    async fn insert_accepted(
        &self,
        acceptor: &Acceptor<'_>,
    ) -> Result<Result<Route, Item>, StoreError> {
        let Acceptor { plan, now, .. } = acceptor;
        let details = Details::new(plan, *now);
        self.name(details.route).await?;
        let mut item = acceptor.attributes(details.route);
        item.insert("key".into(), text(plan.key));
        item.insert("details".into(), text(stored::to_json(&details)));
        let put = self
            .client()
            .await
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#key) OR forgotten_at <= :now")
            .expression_attribute_names("#key", "key")
            .expression_attribute_values(":now", millis(*now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .boxed()
            .await;
        let Err(error) = put else { return Ok(Ok(details.route)) };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(Err(refusal.item.clone().unwrap_or_default()))
            }
            _ => Err(self.failed(error)),
        }
    }

    /// Accepts an event in place of its dead letter, or of an owner that died. Returns its route, or
    /// the item as it is now if it has changed.
    async fn accept_over(
        &self,
        acceptor: &Acceptor<'_>,
        found: &Item,
        deadline: Instant,
    ) -> Result<Result<Route, Item>, StoreError> {
        let Acceptor { plan, now, .. } = acceptor;
        let Record { details, failed, .. } = record(plan.key, found, *now)?;
        let details = details.ok_or_else(|| StoreError::corrupt("no details"))?;
        self.name(details.route).await?;
        let set = acceptor.attributes(details.route);
        let mut remove = vec!["held_until", "expires_at", "failed_at", "failure"];
        remove.extend(letter::ATTRIBUTES.iter().filter(|name| !set.contains_key(**name)));
        let (update, mut values) = assignment(set, &remove);
        values.insert(":before".into(), text(string(found, "held_by")?));
        values.insert(":now".into(), millis(*now));
        let mut condition = "held_by = :before AND attribute_not_exists(delivered_at) \
                             AND (attribute_not_exists(held_until) OR held_until <= :now) AND "
            .to_owned();
        match failed {
            Some(failed) => {
                condition += "failed_at = :failed";
                values.insert(":failed".into(), millis(failed.at));
            }
            None => condition += "attribute_not_exists(failed_at)",
        }
        match self.update_item(&plan.key, &update, &condition, values).await? {
            Ok(before) => {
                self.delete_parts(&before, deadline).await;
                Ok(Ok(details.route))
            }
            Err(found) => Ok(Err(found)),
        }
    }

    pub(super) async fn due_events(
        &self,
        route: Route,
        by_now: Option<DateTime<Utc>>,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        let after = after.map(|Due { at, key }| (at, key));
        let to = by_now.map_or_else(|| "~".into(), end_of);
        let (list, limit) = (index::inbox(route), limit.min(1000));
        let due = self.entries(index::partitions(&list), after, &to, limit).await?;
        Ok(due.into_iter().map(|(at, key)| Due { at, key }).collect())
    }

    pub(super) async fn relist_event(
        &self,
        route: Route,
        entry: Due,
        look: DateTime<Utc>,
    ) -> Result<Option<Due>, StoreError> {
        let Due { at, key } = entry;
        let [(_, list), _] = index::entry_of(&index::inbox(route), look, &key);
        let before = text(sort_key(at, key));
        let new = text(sort_key(look, key));
        let condition = "dead = :list AND dead_letter = :before";
        let values = Item::from([
            (":list".into(), list),
            (":before".into(), before),
            (":new".into(), new.clone()),
        ]);
        let updated = self.update_item(&key, "SET dead_letter = :new", condition, values).await?;
        // The answer to this call's first try may have been lost.
        let is_moved = match &updated {
            Ok(_) => true,
            Err(found) => found.get("dead_letter") == Some(&new),
        };
        Ok(is_moved.then_some(Due { at: look, key }))
    }

    pub(super) async fn take_event(
        &self,
        key: &Key,
        early: bool,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Take, StoreError> {
        let owner = new_owner();
        let mut condition = "attribute_exists(accepted) \
                             AND (attribute_not_exists(held_until) OR held_until <= :now)"
            .to_owned();
        if !early {
            condition += " AND due <= :now";
        }
        // In the index, `dead_letter` is the sort key of both lists.
        let taken = self
            .client()
            .await
            .update_item()
            .table_name(&self.table)
            .key("key", text(key))
            .update_expression(
                "SET held_by = :owner, held_until = :until, due = :until, dead_letter = :entry",
            )
            .condition_expression(condition)
            .expression_attribute_values(":owner", text(&owner))
            .expression_attribute_values(":until", millis(until))
            .expression_attribute_values(":entry", text(sort_key(until, key)))
            .expression_attribute_values(":now", millis(now))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .boxed()
            .await;
        let item = match taken {
            Ok(output) => output.attributes.unwrap_or_default(),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                    let found = refusal.item.clone().unwrap_or_default();
                    // The answer to this call's first try may have been lost.
                    match time(&found, "due")? {
                        Some(_) if is_held_by(&found, &owner) => found,
                        Some(due) => return Ok(Take::NotDue(due)),
                        None => return Ok(Take::Gone),
                    }
                }
                _ => return Err(self.failed(error)),
            },
        };
        fault::point("after take writes");
        let taken = self.read_taken(*key, &item, owner.clone(), now, until).await;
        if let Err(StoreError::Corrupt(_)) = taken
            && let Err(error) = self.put_off(key, &owner, now).await
        {
            tracing::warn!(%key, %error, "an event that cannot be read could not be put off: it is listed again when its lease ends");
        }
        Ok(Take::Won(Box::new(taken?)))
    }

    /// Reads the item that a take was won with, and its delivery.
    async fn read_taken(
        &self,
        key: Key,
        item: &Item,
        owner: String,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Taken, StoreError> {
        let Record { details, attempts, accepted, .. } = record(key, item, now)?;
        let delivery = letter::read(self.client().await, &self.table, item).await?;
        let missing = || StoreError::corrupt(format!("{key} has lost a part"));
        let details = details.ok_or_else(missing)?;
        let (accepted, delivery) = accepted.zip(delivery).ok_or_else(missing)?;
        let lease = Lease { key, owner, until, details, attempts };
        Ok(Taken { lease, accepted, delivery })
    }

    /// Gives back an event that was taken and cannot be read, so that it is not looked at again soon.
    async fn put_off(&self, key: &Key, owner: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        let set = Item::from([
            ("due".into(), millis(now)),
            ("dead_letter".into(), text(sort_key(now + UNREADABLE_PAUSE, key))),
        ]);
        let (update, mut values) = assignment(set, &["held_until"]);
        values.insert(":owner".into(), text(owner));
        let condition = "held_by = :owner AND attribute_exists(accepted)";
        self.update_item(key, &update, condition, values).await.map(drop)
    }

    pub(super) async fn postpone_event(
        &self,
        lease: &Lease,
        postponed: &Postponed,
    ) -> Result<Settled, StoreError> {
        let Postponed { due, look, accepted, attempts, .. } = postponed;
        let set = Item::from([
            ("accepted".into(), text(stored::to_json(accepted))),
            ("due".into(), millis(*due)),
            ("dead_letter".into(), text(sort_key(*look, lease.key))),
            ("attempts".into(), text(stored::to_json(attempts))),
        ]);
        let (update, mut values) = assignment(set, &["held_until"]);
        values.insert(":owner".into(), text(&lease.owner));
        let condition = "held_by = :owner AND attribute_exists(accepted)";
        let updated = self.update_item(&lease.key, &update, condition, values).await?;
        fault::point("after postpone writes");
        Ok(if updated.is_ok() { Settled::Stored } else { Settled::LeaseLost })
    }

    /// Reads an item by its key.
    pub(super) async fn item(&self, key: &impl Display) -> Result<Option<Item>, StoreError> {
        let get = self.client().await.get_item().table_name(&self.table).key("key", text(key));
        let got = get.consistent_read(true).send().boxed().await;
        Ok(got.map_err(|error| self.failed(error))?.item)
    }

    /// Reads the item of an event with its delivery, if the item is one that the caller wants. If
    /// another call replaces the delivery meanwhile, it deletes the parts of the old one. Then item
    /// and delivery are read again.
    pub(super) async fn item_and_delivery(
        &self,
        key: &Key,
        is_wanted: fn(&Item) -> bool,
    ) -> Result<Option<(Item, Delivery)>, StoreError> {
        for _ in 0..TRIES {
            let item = self.within(self.deadline(), self.item(key)).await?;
            let Some(item) = item.filter(is_wanted) else { return Ok(None) };
            let read = letter::read(self.client().await, &self.table, &item);
            if let Some(delivery) = self.within(self.deadline(), read).await? {
                return Ok(Some((item, delivery)));
            }
        }
        Err(StoreError::corrupt(format!("a part of the delivery of {key} is missing")))
    }

    /// Looks at the parts that no sweep has seen for a day, and deletes the parts that no item refers
    /// to. A sweep looks at the other parts again a day later.
    pub(super) async fn sweep_parts(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let to = end_of(now - GARBAGE_AGE);
        let lists = index::partitions(index::PARTS);
        for listed in self.listed(lists, None, &to, SWEPT_AT_ONCE).await? {
            let name = listed.split_once('#').map(|(_, name)| name).unwrap_or_default();
            let location = name.rsplit_once('#').map(|(location, _)| location);
            let key = location.and_then(|location| location.split_once('#'));
            let (Some(location), Some(Ok(key))) =
                (location, key.map(|(key, _)| key.parse::<Key>()))
            else {
                tracing::warn!(name, "an entry of the list of parts names no part");
                continue;
            };
            let item = self.item(&key).await?;
            let client = self.client().await;
            if item.is_some_and(|item| optional_string(&item, "parts_at") == Some(location)) {
                let update = client.update_item().table_name(&self.table).key("key", text(name));
                let update = update.update_expression("SET dead_letter = :entry");
                let update =
                    update.expression_attribute_values(":entry", text(sort_key(now, name)));
                let update = update.condition_expression("attribute_exists(part)");
                let update = update.send().boxed().await;
                if let Err(error) = update
                    && !matches!(
                        error.as_service_error(),
                        Some(UpdateItemError::ConditionalCheckFailedException(_))
                    )
                {
                    return Err(self.failed(error));
                }
            } else {
                let deletion = client.delete_item().table_name(&self.table).key("key", text(name));
                deletion.send().boxed().await.map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }
}
