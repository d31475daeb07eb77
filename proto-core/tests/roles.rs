//! The roles in a virtual world, the same stories with the deterministic QUIC stand-in and with real quiche.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

#[path = "roles/contract.rs"]
mod contract;
#[path = "roles/raw.rs"]
mod raw;
#[path = "roles/relay.rs"]
mod relay;
#[path = "roles/setup.rs"]
mod setup;

/// Every story once per QUIC implementation.
macro_rules! stories {
    ($($module:ident: $($story:ident)*;)*) => {
        mod fake {
            $($(
                #[test]
                fn $story() {
                    crate::$module::$story(crate::setup::FakeQuic::new());
                }
            )*)*
        }
        mod quiche {
            $($(
                #[test]
                fn $story() {
                    crate::$module::$story(crate::setup::RealQuic::new());
                }
            )*)*
        }
    };
}

stories! {
    relay:
        clients_are_told_where_they_are_seen
        a_moved_client_is_told_its_new_address
        a_packet_reaches_the_connector_bare_and_the_reply_its_agent
        replies_find_the_right_one_of_two_agents_that_look_alike
        a_bare_packet_goes_to_the_only_service
        a_bare_packet_for_one_of_two_services_is_dropped
        control_bytes_inside_a_wrapper_go_nowhere
        malformed_datagrams_are_counted_and_the_connection_lives
        certificates_decide_who_registers_for_what
        a_service_is_taken_only_by_its_owner
        a_connector_cannot_open_flows_to_agents
        nobody_behind_a_service_is_said_at_once
        registrations_die_with_their_connection
        everything_is_empty_after_everyone_left
        junk_on_the_socket_changes_nothing;
}
