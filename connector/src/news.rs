//! What is said about backends: a change that somebody should look at once, everything else when asked for.

use proto_core::id::ServiceId;
use proto_core::service::ServiceEvent;

/// Puts one event into the log.
pub(crate) fn tell(event: &ServiceEvent, service: Option<&ServiceId>) {
    let service = service.map_or("?", ServiceId::as_str);
    match event {
        ServiceEvent::BackendUp { backend } => log::info!("service {service}: backend {backend} is up"),
        ServiceEvent::BackendDown { backend, why } => {
            log::warn!("service {service}: backend {backend} is down: {why}");
        }
        ServiceEvent::NameUnknown { name } => {
            log::warn!("service {service}: cannot resolve {name}; what was known before is used, trying on");
        }
        ServiceEvent::NameKnown { name } => log::info!("service {service}: {name} resolves again"),
        ServiceEvent::Denied { name: Some(name) } => {
            log::debug!("service {service}: {name} is not on its list");
        }
        ServiceEvent::Denied { name: None } => {
            log::debug!("service {service}: refused an agent that the intermediate did not introduce");
        }
        ServiceEvent::Available => log::debug!("service {service} is published"),
        ServiceEvent::Withdrawn => {
            log::warn!("service {service} is withdrawn: no backend is well; it comes back by itself");
        }
    }
}
