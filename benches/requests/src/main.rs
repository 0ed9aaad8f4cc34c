//! A function that sends the requests of a delivery, and does nothing else: a conditional PutItem, a POST of the
//! event to its destination, and an UpdateItem. The writes have the attributes and conditions of the router's.

use std::env;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::{
    Client as DynamoDb,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use lambda_http::{Body, Error, Request, RequestExt, Response, run, service_fn};

/// Texts as long as those of a delivery.
const DETAILS: &str = r#"{"vendor":"stripe","event_type":"payment_intent.succeeded","created_at":"2026-11-27T00:00:00Z","digest":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","route":"gcp","first_seen":1795737600000}"#;
const ATTEMPTS: &str = r#"[{"number":1,"at":1795737600000,"by":"vendor","destination":"gcp","outcome":"200","milliseconds":1}]"#;
const OWNER: &str = "0123456789abcdef0123456789abcdef";

/// The table, the destination, and their clients.
struct Function {
    table: String,
    target: String,
    dynamodb: DynamoDb,
    http: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Function {
    async fn answer(&self, request: Request) -> Result<Response<Body>, Error> {
        let key = request.lambda_context().request_id;
        self.claim(&key).await?;
        self.post(request.into_body()).await?;
        self.finish(&key).await?;
        Ok(Response::new(Body::Text("done".into())))
    }

    async fn claim(&self, key: &str) -> Result<(), Error> {
        self.dynamodb
            .put_item()
            .table_name(&self.table)
            .item("key", text(key))
            .item("details", text(DETAILS))
            .item("held_by", text(OWNER))
            .item("held_until", number(1_795_737_610_000))
            .item("expires_at", number(1_795_824_000))
            .condition_expression("attribute_not_exists(#key) OR forgotten_at <= :now")
            .expression_attribute_names("#key", "key")
            .expression_attribute_values(":now", number(1_795_737_600_000))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await?;
        Ok(())
    }

    async fn post(&self, body: Body) -> Result<(), Error> {
        let request = http::Request::post(&self.target)
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::copy_from_slice(&body)))?;
        self.http.request(request).await?.into_body().collect().await?;
        Ok(())
    }

    async fn finish(&self, key: &str) -> Result<(), Error> {
        self.dynamodb
            .update_item()
            .table_name(&self.table)
            .key("key", text(key))
            .update_expression(
                "SET attempts = :attempts, delivered_at = :at, forgotten_at = :forgotten, expires_at = :expires \
                 REMOVE held_until, dead, dead_letter, failed_at, failure, delivery, codec, part_count, parts_at, \
                 accepted, accepted_by, due",
            )
            .condition_expression("held_by = :owner")
            .expression_attribute_values(":owner", text(OWNER))
            .expression_attribute_values(":attempts", text(ATTEMPTS))
            .expression_attribute_values(":at", number(1_795_737_600_000))
            .expression_attribute_values(":forgotten", number(1_795_824_000_000))
            .expression_attribute_values(":expires", number(1_795_824_001))
            .return_values(ReturnValue::UpdatedOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await?;
        Ok(())
    }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let settings = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
    let function = Function {
        table: env::var("TABLE")?,
        target: env::var("GCP_TARGET_URL")?,
        dynamodb: DynamoDb::new(&settings),
        http: Client::builder(TokioExecutor::new()).build_http(),
    };
    run(service_fn(async |request| function.answer(request).await)).await
}
