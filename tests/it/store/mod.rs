//! The one contract of all stores, as a test for each store and clause: `store::redis::claim_is_exclusive`.
//!
//! A new store adds its line below and a function that opens it to `opened.rs`, and inherits every
//! clause. A new clause is a function in a file beside this one and a line in the table below. If
//! the line is missing, the compiler reports an unused function.

mod clauses;
mod inbox;
mod looks;
mod names;
mod opened;

macro_rules! contract {
    ($store:ident) => {
        mod $store {
            contract! { $store, clauses:
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
            contract! { $store, inbox:
                accepted_event_is_due_at_once_and_taken_once
                accepted_event_excludes_claims_and_never_expires
                one_of_simultaneous_acceptances_and_takes_wins
                ended_lease_on_an_accepted_event_is_taken_over_and_fenced
                postponed_event_waits_for_its_time
                event_may_be_accepted_for_later
                delivered_event_leaves_the_inbox
                failed_event_leaves_the_inbox_and_may_be_accepted_anew
                uncertain_failure_of_an_accepted_event_holds_the_key
                event_that_is_not_free_is_not_accepted
                dead_owner_does_not_prevent_an_acceptance
                inboxes_are_listed_by_destination_and_time_page_by_page
                waiting_event_is_discarded
                accepted_delivery_is_kept_whole
            }
            contract! { $store, looks:
                event_with_a_message_is_listed_later_than_it_is_due
                entry_is_moved_only_while_it_is_as_it_was_read
            }
            contract! { $store, names:
                inbox_of_another_process_is_found_and_used
            }
        }
    };
    ($store:ident, $clauses:ident: $($clause:ident)*) => {$(
        #[tokio::test]
        async fn $clause() {
            super::$clauses::$clause(super::opened::$store().await).await;
        }
    )*};
}

contract!(sqlite);
contract!(redis);
contract!(redis_tls);
contract!(redis_cluster);
contract!(dynamodb);
