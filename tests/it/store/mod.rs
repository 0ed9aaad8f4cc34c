//! The one contract of all stores, as a test for each store and clause: `store::redis::claim_is_exclusive`.
//!
//! A new store adds its line below and a function that opens it to `opened.rs`, and inherits every
//! clause. A new clause is a function in `clauses.rs` and a line in the table below. If the line is
//! missing, the compiler reports an unused function.

mod clauses;
mod opened;

macro_rules! contract {
    ($store:ident) => {
        mod $store {
            contract! { $store:
                claim_is_exclusive
                ping_is_answered_and_leaves_nothing_behind
                examination_finds_no_error
                one_of_simultaneous_claims_wins
                ended_lease_is_taken_over_and_fenced
                ended_lease_counts_until_it_is_taken_over
                delivered_event_is_remembered_whole_until_its_ttl_ends
                failed_event_is_free_and_keeps_its_route
                uncertain_failure_holds_the_key_until_the_lease_ends
                dead_owner_still_shows
                discarded_event_is_forgotten
                chosen_name_belongs_to_one_body
                dead_letter_keeps_the_delivery_whole
                dead_letters_are_listed_by_time_page_by_page
                key_is_found_by_its_first_digits_where_the_store_can
                names_of_any_length_are_kept_cut
                event_nobody_claimed_is_unknown
            }
        }
    };
    ($store:ident: $($clause:ident)*) => {$(
        #[tokio::test]
        async fn $clause() {
            super::clauses::$clause(super::opened::$store().await).await;
        }
    )*};
}

contract!(sqlite);
contract!(redis);
contract!(redis_tls);
contract!(redis_cluster);
contract!(dynamodb);
