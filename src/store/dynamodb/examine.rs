//! Checks that the table has the layout that the router needs (docs/stores.md).

use aws_sdk_dynamodb::types::{
    GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, KeyType, TableDescription,
    TableStatus, TimeToLiveDescription, TimeToLiveStatus,
};

use super::{
    super::{SUBJECT, Store as _, StoreError},
    DynamoDb, INDEX,
};
use crate::finding::Finding;

/// The attribute that tells DynamoDB when to delete an item.
const TTL_ATTRIBUTE: &str = "expires_at";

impl DynamoDb {
    /// Requests the description of the table. A role that can only claim may lack the permission.
    pub(super) async fn looked_at(&self) -> Vec<Finding> {
        let described = self.within(self.deadline(), async {
            let table = self.client().await.describe_table().table_name(&self.table).send().await;
            Ok(table.map_err(|error| self.failed(error))?.table)
        });
        let table = match described.await {
            Ok(table) => table.unwrap_or_else(|| TableDescription::builder().build()),
            Err(StoreError::Failed(text)) if text.contains("AccessDenied") => {
                return self.not_allowed().await;
            }
            Err(error) => return vec![Finding::error(SUBJECT, error.to_string())],
        };
        let mut findings = match table.table_status() {
            Some(TableStatus::Active | TableStatus::Updating) => {
                vec![Finding::ok(SUBJECT, format!("{self} exists"))]
            }
            status => {
                let status = status.map_or("in no state", TableStatus::as_str);
                vec![Finding::error(
                    SUBJECT,
                    format!("{self} is {status}: wait until it is ACTIVE"),
                )]
            }
        };
        if !is_keyed_by(table.key_schema(), &["key"]) {
            let text = format!("{self} must have the string `key` as its only key: {REMEDY}");
            findings.push(Finding::error(SUBJECT, text));
        }
        findings.extend(self.index(table.global_secondary_indexes()));
        findings.extend(self.time_to_live().await);
        findings
    }

    fn index(&self, indexes: &[GlobalSecondaryIndexDescription]) -> Option<Finding> {
        let index = indexes.iter().find(|index| index.index_name() == Some(INDEX));
        let problem = match index {
            None => "is missing",
            Some(index) if !is_keyed_by(index.key_schema(), &["dead", "dead_letter"]) => {
                "must have the keys `dead` and `dead_letter`"
            }
            Some(index) if index.index_status() == Some(&IndexStatus::Creating) => {
                "is still being created"
            }
            Some(_) => return None,
        };
        let text = format!(
            "the index {INDEX} of {self} {problem}: dead letters cannot be listed: {REMEDY}"
        );
        Some(Finding::error(SUBJECT, text))
    }

    async fn time_to_live(&self) -> Option<Finding> {
        let described = self.within(self.deadline(), async {
            let client = self.client().await;
            let ttl = client.describe_time_to_live().table_name(&self.table).send().await;
            Ok(ttl.map_err(|error| self.failed(error))?.time_to_live_description)
        });
        let is_on = |ttl: &TimeToLiveDescription| {
            let status = ttl.time_to_live_status();
            ttl.attribute_name() == Some(TTL_ATTRIBUTE)
                && matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        };
        // Without the permission for this request, no problem is known.
        if described.await.ok()?.as_ref().is_some_and(is_on) {
            return None;
        }
        let text = format!(
            "{self} keeps expired items, and grows: turn on TTL for the attribute {TTL_ATTRIBUTE} \
             ({REMEDY})"
        );
        Some(Finding::warning(SUBJECT, text))
    }

    async fn not_allowed(&self) -> Vec<Finding> {
        let text = format!(
            "{self} answers; these credentials may not read its keys, index and TTL \
             (dynamodb:DescribeTable, dynamodb:DescribeTimeToLive)"
        );
        vec![match self.ping().await {
            Ok(()) => Finding::ok(SUBJECT, text),
            Err(error) => Finding::error(SUBJECT, error.to_string()),
        }]
    }
}

const REMEDY: &str = "docs/deploy.md has the commands";

/// Returns whether the partition key and the sort key have these names.
fn is_keyed_by(schema: &[KeySchemaElement], names: &[&str]) -> bool {
    let kinds = [KeyType::Hash, KeyType::Range];
    let expected = names.iter().copied().zip(&kinds);
    schema.len() == names.len()
        && expected.into_iter().all(|(name, kind)| {
            schema.iter().any(|key| key.attribute_name() == name && key.key_type() == kind)
        })
}
