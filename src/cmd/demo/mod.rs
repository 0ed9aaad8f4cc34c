//! `demo`: shows the router's main job on one machine, with real HTTP and a real Invoke call.

mod answers;
mod events;
mod site;
mod traffic;
mod vendors;

use std::sync::atomic::Ordering;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::sync::watch;

use self::site::Site;
use super::stop::stop_signal;

#[derive(Args)]
pub struct Options {
    /// Keep the servers running until Ctrl-C, so that you can try them by hand.
    #[arg(long)]
    stay: bool,
}

/// Runs the demo, and checks everything that it shows.
///
/// # Errors
/// Fails if a result is not as expected, or a part cannot be started.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (stop, stopped) = watch::channel(false);
    let site = Site::start(folder.path(), vendors::variables(), stopped).await?;
    say!("router       {}   (store: {})", site.router, site.store);
    say!("cloud run    {}   (destination gcp)", site.cloud_run);
    say!("lambda       {}   (destination aws: an Invoke API)\n", site.lambda);

    let signed = site.send_vendors_events().await?;
    let rows = site.send_every_event_twice().await?;
    let received = site.received()?;
    say!("{}", vendors::table(&signed, &received));
    say!("{}", events::table(&rows, &received));
    vendors::check(&signed, &received)?;
    events::check(&rows, &received)?;
    ensure!(
        received.len() == signed.len() + rows.iter().filter(|row| row.is_routed()).count(),
        "a destination received an event that it should not have received"
    );
    say!("{}\n", site.race().await?);

    say!("What this shows:");
    say!(
        "  - the router verifies each vendor's signature, whatever its scheme; it refuses a forgery;"
    );
    say!("  - an event is processed once: a second delivery is answered, not forwarded, also");
    say!("    when it is signed anew, or has its keys in another order and other white space;");
    say!("  - an event always goes to the same destination, and its bytes arrive unchanged");
    say!("    (compared by SHA-256);");
    say!("  - bad input is refused with its reason, and no destination sees it.");

    say!("\n{}", by_hand(&site, options.stay));
    if options.stay {
        site.shows_traffic.store(true, Ordering::Relaxed);
        stop_signal()?.await;
    }
    stop.send(true)?;
    Ok(())
}

fn by_hand(site: &Site, staying: bool) -> String {
    let body = r#"{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z","amount":4200}"#;
    let program = std::env::args().next().unwrap_or_else(|| "webhook-router".into());
    if staying {
        let vendors::Signer { name, secret, .. } = vendors::BY_HAND;
        let event = format!("{program} event --vendor {name}");
        return format!(
            "Go on by hand, in another terminal. Every request is shown here; Ctrl-C ends it:\n  \
             {event} --secret {secret} --send {router}   # again: a duplicate\n  \
             {event} --secret another --send {router}   # 401\n  \
             {event} --secret {secret} --curl {router}   # the same with curl\n  \
             curl -i {router}/webhook -d '{body}'\n  curl {cloud_run}/receipts\n  \
             curl {lambda}/receipts\n",
            router = site.router,
            cloud_run = site.cloud_run,
            lambda = site.lambda,
        );
    }
    format!(
        "Go on by hand: `make demo-stay` keeps these servers running. Or start your own:\n  \
         target/debug/webhook-processor &\n  \
         export GCP_TARGET_URL=http://127.0.0.1:9090 AWS_TARGET_FUNCTION=webhook-processor\n  \
         export AWS_ENDPOINT_URL_LAMBDA=http://127.0.0.1:9090 AWS_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local\n  \
         export STRIPE_SECRETS=whsec_demo_not_a_secret\n  \
         target/debug/webhook-router serve &\n  \
         target/debug/webhook-router event --vendor stripe --send http://127.0.0.1:8080\n  \
         curl -i http://127.0.0.1:8080/webhook -d '{body}'\n  \
         curl http://127.0.0.1:9090/receipts"
    )
}
