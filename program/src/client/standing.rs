//! What a client answers probes: whether it is well, and whether it is of use.
//!
//! A service that is withdrawn because no backend is well makes neither answer bad as long as there is another one: it is
//! no fault of this program, and a restart would cost the others their sessions.

/// How a client stands towards its intermediate.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// Each service, and how it is.
    pub services: Vec<(&'a str, ServiceState)>,
    /// Whether the intermediate is there.
    pub connected: bool,
}

/// How a service of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// The intermediate has it.
    Registered,
    /// It should have it.
    Missing,
    /// It is not offered, because no backend is well: no fault of this program, nor of its connections.
    Withdrawn,
}

impl ServiceState {
    /// Of a service that is to be registered at all times.
    pub fn of(registered: bool) -> Self {
        if registered {
            Self::Registered
        } else {
            Self::Missing
        }
    }
}

impl Standing<'_> {
    /// Whether every service that is not withdrawn is registered.
    ///
    /// # Errors
    /// Names those that are not, up to a few.
    pub fn health(&self) -> Result<String, String> {
        match self.list(ServiceState::Missing) {
            None => Ok(self.words("ok".to_owned())),
            Some(_) => Err(self.problem()),
        }
    }

    /// Whether at least one service is registered, or none is configured.
    ///
    /// # Errors
    /// Names those that are not, up to a few.
    pub fn ready(&self) -> Result<String, String> {
        let mut states = self.services.iter().map(|(_, state)| *state);
        if !self.services.is_empty() && states.all(|state| state != ServiceState::Registered) {
            return Err(self.problem());
        }
        Ok(self.words(match self.list(ServiceState::Missing) {
            None => "ok".to_owned(),
            Some(missing) => format!("ok; not registered: {missing}"),
        }))
    }

    fn problem(&self) -> String {
        let missing = self.list(ServiceState::Missing);
        let missing = missing.map(|missing| format!("not registered: {missing}"));
        // A service that is withdrawn needs no connection.
        let unconnected = missing.is_some() && !self.connected;
        let unconnected = unconnected.then(|| "not connected to the intermediate".to_owned());
        let found: Vec<String> = [unconnected, missing].into_iter().flatten().collect();
        if found.is_empty() {
            return self.words("no service is offered".to_owned());
        }
        self.words(found.join("; "))
    }

    /// With what is withdrawn behind it.
    fn words(&self, before: String) -> String {
        match self.list(ServiceState::Withdrawn) {
            None => before,
            Some(withdrawn) => format!("{before}; withdrawn: {withdrawn}"),
        }
    }

    /// The first few services in a state, if any are.
    fn list(&self, state: ServiceState) -> Option<String> {
        const NAMED: usize = 8;
        let all = self.services.iter().filter(|(_, is)| *is == state);
        let all: Vec<&str> = all.map(|(id, _)| *id).collect();
        let named = all.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match all.len() {
            0 => None,
            count if count > NAMED => Some(format!("{named} and {} more", count - NAMED)),
            _ => Some(named),
        }
    }
}

#[cfg(test)]
mod tests;
