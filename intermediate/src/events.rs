//! What the intermediate does, in the log: changes that an operator sees at INFO, and no address above DEBUG.

use program::redact::Redacted;
use proto_core::intermediate::IntermediateEvent;
use proto_core::wire::control::Refusal;
use proto_core::wire::datagram::{NackStatus, Role};
use runtime_io::{Context, Notice};

use crate::Machine;

pub(crate) fn tell(notice: Notice<IntermediateEvent>, _: Context<'_, Machine>) {
    let Notice::Event(event) = notice else {
        return;
    };
    match event {
        IntermediateEvent::Connected { client, address } => {
            log::debug!(
                "client {} from {} port {}",
                number(client.index, client.generation),
                Redacted(address.ip()),
                address.port()
            );
        }
        IntermediateEvent::Registered {
            client,
            role,
            service,
        } => {
            let number = number(client.index, client.generation);
            // A client names its service; what it writes must not write our log.
            log::info!(
                "client {number} registered as {} of {}",
                word(role),
                service.escape_debug()
            );
        }
        IntermediateEvent::Refused {
            client,
            role,
            service,
            status,
        } => {
            let number = number(client.index, client.generation);
            log::info!(
                "client {number} refused as {} of {}: {}",
                word(role),
                service.escape_debug(),
                reason(status)
            );
        }
        IntermediateEvent::Withdrawn {
            client,
            role,
            service,
            reason,
        } => {
            let number = number(client.index, client.generation);
            log::info!(
                "client {number} is {} of {} no longer: {}",
                word(role),
                service.escape_debug(),
                reason.map_or("it gave the service back", withdrawal)
            );
        }
        IntermediateEvent::Gone { client, reason } => {
            log::debug!(
                "client {} gone: {reason:?}",
                number(client.index, client.generation)
            );
        }
    }
}

fn number(index: u32, generation: u32) -> String {
    format!("{index}.{generation}")
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent",
        Role::Connector => "connector",
    }
}

fn withdrawal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::NotAuthorised => "its certificate no longer permits it",
        Refusal::Taken => "a newer connection of the same certificate has taken it over",
        Refusal::Unknown => "it did not ask again in time",
        Refusal::InvalidId
        | Refusal::AtCapacity
        | Refusal::NoConnector
        | Refusal::PeerIsV1
        | Refusal::Other(_) => "it was taken back",
    }
}

fn reason(status: NackStatus) -> String {
    match status {
        NackStatus::InvalidId => "the id is empty or not UTF-8".to_owned(),
        NackStatus::NotAuthorised => "its certificate does not name the service".to_owned(),
        NackStatus::Taken => "another connector has the service".to_owned(),
        NackStatus::AtCapacity => "a limit is reached".to_owned(),
        NackStatus::Other(code) => format!("status {code}"),
    }
}
