//! The roles in a virtual world, the same stories with the deterministic QUIC stand-in and with real quiche.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

#[path = "roles/changes.rs"]
mod changes;
#[path = "roles/channels.rs"]
mod channels;
#[path = "roles/contract.rs"]
mod contract;
#[path = "roles/crowd.rs"]
mod crowd;
#[path = "roles/guests.rs"]
mod guests;
#[path = "roles/healing.rs"]
mod healing;
#[path = "roles/impostor.rs"]
mod impostor;
#[path = "roles/leases.rs"]
mod leases;
#[path = "roles/locals.rs"]
mod locals;
#[path = "roles/mixed.rs"]
mod mixed;
#[path = "roles/nats.rs"]
mod nats;
#[path = "roles/people.rs"]
mod people;
#[path = "roles/raw.rs"]
mod raw;
#[path = "roles/relay.rs"]
mod relay;
#[path = "roles/service.rs"]
mod service;
#[path = "roles/sessions.rs"]
mod sessions;
#[path = "roles/setup.rs"]
mod setup;
#[path = "roles/signals.rs"]
mod signals;
#[path = "roles/size.rs"]
mod size;
#[path = "roles/speaker.rs"]
mod speaker;
#[path = "roles/speaking.rs"]
mod speaking;
#[path = "roles/tunnel.rs"]
mod tunnel;
#[path = "roles/uplink.rs"]
mod uplink;

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
    sessions:
        packets_go_straight_and_nobody_reads_them_on_the_way
        a_cut_direct_path_is_left_and_taken_again
        a_direct_path_that_dies_one_way_is_left_by_both
        a_direct_path_outlives_the_intermediate
        packets_are_relayed_where_hosts_cannot_meet
        every_pair_of_translators_meets_exactly_when_it_can
        a_connector_without_the_right_name_gets_no_packet
        a_second_service_of_a_connector_needs_its_name_as_well
        an_agent_without_the_right_name_reaches_nothing
        an_idle_session_ends_and_comes_back
        a_direct_path_follows_an_agent_whose_translator_forgets_it
        nothing_is_left_of_a_session_whose_ends_have_left
        a_connector_of_v1_is_reached_wrapped
        an_agent_of_v1_reaches_a_connector_with_sessions
        an_intermediate_of_v1_serves_both_as_ever
        a_connector_that_was_restarted_is_found_again;
    locals:
        streams_arrive_whole_over_a_rough_path_and_leave_nothing
        a_deaf_program_holds_its_service_back_and_nobody_else
        a_reset_passes_in_both_directions
        each_way_not_to_reach_a_service_is_told_apart
        socks_reaches_by_name_and_says_no_by_number
        datagrams_of_any_size_find_their_way_back
        the_end_waits_for_running_streams_and_takes_no_new_ones
        the_end_waits_no_longer_than_it_was_told;
    changes:
        a_service_without_a_backend_is_answered_for_until_it_returns
        sessions_outlive_every_change_but_the_end_of_their_service
        an_agent_goes_on_with_what_it_keeps_and_learns_what_is_new;
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
    channels:
        a_channel_is_opened_to_both_ends_and_carries_frames
        a_second_service_joins_the_channel
        each_reason_for_no_channel_is_told_apart
        only_the_two_ends_use_a_channel
        a_moved_end_is_followed_after_quic_has_proven_its_address
        frames_travel_inside_where_nothing_else_gets_through
        an_end_that_leaves_takes_its_channels_along
        a_channel_without_frames_ends
        a_channel_has_its_quota
        a_restarted_intermediate_knows_no_old_numbers;
    leases:
        nothing_is_granted_before_the_hello
        a_registration_is_a_lease_and_ends_without_renewal
        each_reason_not_to_register_is_told_apart
        what_is_not_permitted_any_more_is_taken_back
        a_restarted_connector_takes_over_and_old_channels_end
        who_floods_the_control_stream_is_cut_off_alone
        what_cannot_be_read_is_counted_and_skipped
        agents_cannot_drown_a_connector
        who_does_not_listen_is_given_up_alone
        clients_of_v2_hear_of_the_end_before_it_comes;
    mixed:
        packets_of_v1_travel_on_the_same_connection
        an_agent_of_v2_reaches_a_connector_of_v1;
    guests:
        a_v1_agent_reaches_a_connector_directly
        a_flow_of_the_relay_goes_on_directly
        v1_agents_that_look_alike_hear_their_own_words
        strangers_beside_quic_are_not_answered
        an_agent_of_another_service_is_sent_away
        a_direct_connection_that_ends_leaves_nothing
        a_connector_of_a_v1_intermediate_is_reached_as_well
        a_connector_that_lets_nobody_come_directly_has_nobody_come
        a_connector_without_sessions_says_so;
    signals:
        an_offer_is_answered_and_both_begin
        each_reason_to_refuse_an_offer_is_told_apart
        strangers_answers_are_rejected
        an_unanswered_session_expires
        too_many_offers_are_refused
        an_agent_of_a_connector_that_does_not_read_hurts_nobody
        junk_on_streams_is_skipped_and_hurts_nobody
        a_connector_of_v2_hears_of_it_on_its_control_stream
        clients_that_leave_leave_no_sessions;
    healing:
        a_registration_survives_a_lossy_path
        a_restarted_intermediate_says_so_and_is_back_at_once
        an_idle_agent_finds_out_with_its_next_sign_of_life
        an_intermediate_that_forgot_everything_is_given_up_in_time
        an_intermediate_without_a_key_is_given_up_in_time
        a_denied_certificate_is_reported_and_asked_again_only_after_a_reconnect
        the_pause_grows_until_a_registration_succeeds
        a_success_makes_the_next_pause_short_again
        agents_that_lose_the_same_intermediate_do_not_return_in_step
        an_idle_hour_costs_little
        a_moved_agent_keeps_its_flows
        goodbye_is_said_and_heard
        hours_of_sleep_are_one_step
        a_cut_path_is_noticed_and_heals
        a_short_cut_costs_no_connection
        an_address_learned_late_is_tried_at_once;
    nats:
        the_relay_is_reached_through_every_kind_of_translator
        carriers_and_homes_translate_one_after_the_other
        neighbours_behind_one_translator_use_the_relay_as_well
        an_idle_connector_stays_reachable_through_short_mappings
        a_translator_that_forgets_everything_costs_no_connection;
    uplink:
        one_connection_carries_all_services
        a_service_comes_and_goes_without_the_others_noticing
        a_removed_service_says_goodbye_to_its_sessions_and_leaves_the_others
        an_intermediate_of_v1_gets_a_connection_per_service
        an_intermediate_is_upgraded_and_taken_back
        two_minds_of_an_intermediate_cost_no_storm;
    tunnel:
        packets_find_their_service_by_address
        only_services_speak_to_the_host
        forged_control_changes_nothing
        what_does_not_fit_is_answered_and_what_fits_arrives;
    service:
        an_echo_comes_back_through_everything
        a_busy_service_survives_a_restart_of_the_intermediate
        an_idle_service_learns_of_a_restart_from_its_busy_neighbour
        a_ping_is_answered_for_the_service_and_nobody_else
        two_agents_that_look_alike_hear_their_own
        eight_agents_that_look_alike_hear_their_own
        one_process_publishes_many_services_and_one_agent_uses_them_all
        a_restarted_connector_takes_its_service_back
        everything_goes_on_after_any_restart
        a_moved_idle_connector_is_found_after_its_next_sign_of_life
        nothing_is_left_when_all_have_gone;
}
